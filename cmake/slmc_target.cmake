# slmc_target(NAME): one place for the language level, warnings, visibility and sanitizers of every target of ours.
# slmc_library(PART SOURCES...): static, position independent library slmc_<part>, included as "<part>/file.h".
# slmc_test(NAME SOURCES... [LIBS ...] [TORCH]): a GoogleTest binary. Torch binaries are one ctest entry each,
#   because every start of a torch process costs a third of a second; the others are discovered test by test.
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_CXX_SCAN_FOR_MODULES OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
endif()
if(NOT CMAKE_CXX_COMPILER_LAUNCHER)
  find_program(SLMC_CCACHE ccache)
  if(SLMC_CCACHE)
    set(CMAKE_CXX_COMPILER_LAUNCHER "${SLMC_CCACHE}")
  endif()
endif()
find_program(SLMC_MOLD mold)

function(slmc_target name)
  target_compile_features(${name} PUBLIC cxx_std_20)
  target_compile_options(${name} PRIVATE -Wall -Wextra -Wno-missing-field-initializers -Wshadow -Wnon-virtual-dtor -Woverloaded-virtual
    $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict>   # GCC bug 105651: false alarms on "text" + std::string
    -ffp-contract=off)   # same bytes everywhere: no silent fused multiply-add
  if(SLMC_WERROR)
    target_compile_options(${name} PRIVATE -Werror)
  endif()
  if(SLMC_SANITIZE)
    target_compile_options(${name} PUBLIC -fsanitize=${SLMC_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
    target_link_options(${name} PUBLIC -fsanitize=${SLMC_SANITIZE})
  endif()
  if(SLMC_FUZZ)   # coverage for libFuzzer; only the fuzz_* programs link its main
    target_compile_options(${name} PRIVATE -fsanitize=fuzzer-no-link)
  endif()
  if(SLMC_MOLD)
    target_link_options(${name} PRIVATE -fuse-ld=mold)
  endif()
  target_include_directories(${name} PUBLIC "${PROJECT_SOURCE_DIR}/lib" "${PROJECT_SOURCE_DIR}")
endfunction()

function(slmc_library part)
  add_library(slmc_${part} STATIC ${ARGN})
  slmc_target(slmc_${part})
endfunction()

function(slmc_test name)
  cmake_parse_arguments(arg "TORCH" "" "LIBS" ${ARGN})
  add_executable(${name} ${arg_UNPARSED_ARGUMENTS})
  slmc_target(${name})
  target_link_libraries(${name} PRIVATE ${arg_LIBS} GTest::gtest_main)
  target_compile_definitions(${name} PRIVATE SLMC_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
  if(arg_TORCH)
    add_test(NAME ${name} COMMAND ${name})
    set_tests_properties(${name} PROPERTIES LABELS "unit;torch" ENVIRONMENT "OMP_NUM_THREADS=1" TIMEOUT 900)
  else()
    gtest_discover_tests(${name} DISCOVERY_MODE PRE_TEST PROPERTIES LABELS unit TIMEOUT 300)
  endif()
endfunction()
