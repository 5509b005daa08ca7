slmc_test(packed_test unit/packed_test.cpp LIBS slmc_ir)
