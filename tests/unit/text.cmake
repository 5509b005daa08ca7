slmc_test(text_test unit/text_test.cpp unit/text_parts_test.cpp unit/text_cut_test.cpp unit/text_hostile_test.cpp unit/allocation_limit.cpp
  LIBS slmc_text slmc_io slmc_core nlohmann_json::nlohmann_json)
