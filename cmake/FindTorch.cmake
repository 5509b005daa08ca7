# FindTorch: LibTorch from a wheel, an unpacked archive or a venv, without TorchConfig.cmake
# (that one demands a CUDA toolkit, protobuf helpers and NVTX as soon as the wheel is a CUDA build).
#
# Search order   1. SLMC_TORCH_ROOT (cache variable, then environment): a torch package folder
#                   (holds include/ and lib/) or a venv that has torch installed
#                2. <project>/.venv
#                3. python3 -c importlib.util.find_spec("torch")      (does not import torch)
# Defines        slmc::torch        headers (SYSTEM), libtorch_cpu, libc10, C++20
# Sets           Torch_FOUND Torch_VERSION Torch_ROOT_DIR Torch_LIBRARY_DIR
#                Torch_CUDA_VERSION ("" for a CPU build), Torch_CUDA_LIBRARY (path to dlopen, or NOTFOUND)
set(SLMC_TORCH_MIN 2.11)
set(SLMC_TORCH_BEFORE 2.16)
set(SLMC_TORCH_ROOT "$ENV{SLMC_TORCH_ROOT}" CACHE PATH   # environment is read once; the cache then remembers
  "Folder of LibTorch (the one holding include/ and lib/), or a venv with torch")

# ---- where it is --------------------------------------------------------------------------------
function(_slmc_torch_dir_of hint out)          # package folder below a hint, or ""
  set(${out} "" PARENT_SCOPE)
  file(GLOB dirs LIST_DIRECTORIES true
    "${hint}" "${hint}/torch" "${hint}/lib/python3*/site-packages/torch")
  foreach(dir IN LISTS dirs)
    if(EXISTS "${dir}/include/ATen/core/Tensor.h" AND IS_DIRECTORY "${dir}/lib")
      set(${out} "${dir}" PARENT_SCOPE)
      return()
    endif()
  endforeach()
endfunction()

set(Torch_ROOT_DIR "")
set(_why "")
if(SLMC_TORCH_ROOT)                             # explicit: never fall through to another torch
  _slmc_torch_dir_of("${SLMC_TORCH_ROOT}" Torch_ROOT_DIR)
  set(_why "SLMC_TORCH_ROOT=${SLMC_TORCH_ROOT} holds no torch (expected include/ATen/core/Tensor.h and lib/ there)")
else()
  _slmc_torch_dir_of("${PROJECT_SOURCE_DIR}/.venv" Torch_ROOT_DIR)
  if(NOT Torch_ROOT_DIR)
    find_program(SLMC_PYTHON NAMES python3 python)
    mark_as_advanced(SLMC_PYTHON)
    if(SLMC_PYTHON)
      execute_process(
        COMMAND "${SLMC_PYTHON}" -c
          "import importlib.util as u; s=u.find_spec('torch'); print(s.submodule_search_locations[0] if s else '', end='')"
        OUTPUT_VARIABLE _dir ERROR_QUIET)
      if(_dir)
        _slmc_torch_dir_of("${_dir}" Torch_ROOT_DIR)
      endif()
    endif()
  endif()
  set(_why "no torch found: run scripts/setup, or configure with -DSLMC_TORCH_ROOT=<folder of torch or of a venv>")
endif()

# ---- which one it is ----------------------------------------------------------------------------
set(Torch_VERSION "")
set(Torch_CUDA_VERSION "")
if(Torch_ROOT_DIR)
  set(_why "")
  foreach(header IN ITEMS torch/headeronly/version.h torch/csrc/api/include/torch/version.h torch/version.h)
    if(NOT Torch_VERSION AND EXISTS "${Torch_ROOT_DIR}/include/${header}")
      file(STRINGS "${Torch_ROOT_DIR}/include/${header}" _lines REGEX "define TORCH_VERSION_(MAJOR|MINOR|PATCH) +[0-9]+")
      string(REGEX REPLACE ".*MAJOR +([0-9]+).*MINOR +([0-9]+).*PATCH +([0-9]+).*" "\\1.\\2.\\3" _v "${_lines}")
      if(_v MATCHES "^[0-9]+\\.[0-9]+\\.[0-9]+$")
        set(Torch_VERSION "${_v}")
      endif()
    endif()
  endforeach()
  if(EXISTS "${Torch_ROOT_DIR}/version.py")
    file(READ "${Torch_ROOT_DIR}/version.py" _py)
    if(NOT Torch_VERSION AND _py MATCHES "__version__ = '([0-9]+\\.[0-9]+\\.[0-9]+)")
      set(Torch_VERSION "${CMAKE_MATCH_1}")
    endif()
    if(_py MATCHES "cuda: Optional\\[str\\] = '([0-9.]+)'")
      set(Torch_CUDA_VERSION "${CMAKE_MATCH_1}")
    endif()
  endif()
  set(Torch_LIBRARY_DIR "${Torch_ROOT_DIR}/lib")
  foreach(lib IN ITEMS c10 torch_cpu torch_cuda)
    unset(_slmc_${lib})
    find_library(_slmc_${lib} ${lib} PATHS "${Torch_LIBRARY_DIR}" NO_DEFAULT_PATH NO_CACHE)
  endforeach()
  set(Torch_CUDA_LIBRARY "${_slmc_torch_cuda}")
  if(NOT Torch_VERSION)
    set(_why "the torch in ${Torch_ROOT_DIR} does not say its version")
  elseif(Torch_VERSION VERSION_LESS SLMC_TORCH_MIN OR NOT Torch_VERSION VERSION_LESS SLMC_TORCH_BEFORE)
    set(_why "torch ${Torch_VERSION} in ${Torch_ROOT_DIR} is not supported: slmc needs ${SLMC_TORCH_MIN} or newer, below ${SLMC_TORCH_BEFORE}")
  elseif(NOT _slmc_torch_cpu OR NOT _slmc_c10)
    set(_why "${Torch_LIBRARY_DIR} lacks libtorch_cpu or libc10")
  else()                                        # the old libstdc++ ABI would fail much later, at link time
    file(STRINGS "${_slmc_c10}" _cxx11 LIMIT_COUNT 1 REGEX "NSt7__cxx1112basic_string")
    if(NOT _cxx11)
      set(_why "torch in ${Torch_ROOT_DIR} was built with the old libstdc++ ABI; take a wheel of ${SLMC_TORCH_MIN} or newer")
    endif()
  endif()
endif()

# ---- verdict: exactly one sentence when it fails ------------------------------------------------
if(_why)
  set(Torch_FOUND FALSE)
  if(Torch_FIND_REQUIRED)
    message(FATAL_ERROR "slmc: ${_why}.")
  endif()
  return()
endif()
set(Torch_FOUND TRUE)
if(NOT Torch_FIND_QUIETLY AND NOT TARGET slmc::torch)
  set(_kind "CPU")
  if(Torch_CUDA_VERSION)
    set(_kind "CUDA ${Torch_CUDA_VERSION}")
  endif()
  message(STATUS "slmc: torch ${Torch_VERSION} (${_kind}) in ${Torch_ROOT_DIR}")
endif()

if(NOT TARGET slmc::torch)
  add_library(slmc::c10 SHARED IMPORTED)
  set_target_properties(slmc::c10 PROPERTIES IMPORTED_LOCATION "${_slmc_c10}")
  add_library(slmc::torch SHARED IMPORTED)      # full path: CMake adds its folder to the build RPATH by itself
  set_target_properties(slmc::torch PROPERTIES IMPORTED_LOCATION "${_slmc_torch_cpu}")
  # Imported targets' include folders are SYSTEM by default; said once more so a refactor cannot lose it.
  target_include_directories(slmc::torch SYSTEM INTERFACE
    "${Torch_ROOT_DIR}/include" "${Torch_ROOT_DIR}/include/torch/csrc/api/include")
  target_compile_features(slmc::torch INTERFACE cxx_std_20)
  # The wheel's folder holds another version of fmt's headers, found before the system's: no library that we link fits it.
  target_compile_definitions(slmc::torch INTERFACE FMT_HEADER_ONLY)
  target_link_libraries(slmc::torch INTERFACE slmc::c10)
endif()
