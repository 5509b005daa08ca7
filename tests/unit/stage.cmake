slmc_test(stage_test unit/stage_test.cpp LIBS slmc_stage)
