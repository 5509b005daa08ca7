slmc_test(data_test unit/data_test.cpp unit/domains_test.cpp unit/labelled_test.cpp LIBS slmc_data slmc_text slmc_io slmc_core nlohmann_json::nlohmann_json)
