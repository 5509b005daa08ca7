# Not a test by itself: check_exports.py calls it.
add_executable(write_shards EXCLUDE_FROM_ALL ${CMAKE_CURRENT_LIST_DIR}/write_shards.cpp)
target_link_libraries(write_shards PRIVATE slmc_io)
if(SLMC_ENGINE)
  add_executable(write_plans EXCLUDE_FROM_ALL ${CMAKE_CURRENT_LIST_DIR}/write_plans.cpp)
  slmc_target(write_plans)
  target_link_libraries(write_plans PRIVATE slmc_engine nlohmann_json::nlohmann_json)
endif()
