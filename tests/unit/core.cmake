slmc_test(core_test unit/core_test.cpp unit/file_test.cpp LIBS slmc_core)
