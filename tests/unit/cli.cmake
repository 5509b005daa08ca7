slmc_test(cli_test ${CMAKE_CURRENT_LIST_DIR}/cli_test.cpp ${CMAKE_CURRENT_LIST_DIR}/recipe_schema_test.cpp LIBS slmc_cli)
