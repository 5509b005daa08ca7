if(SLMC_ENGINE)
  slmc_test(collect_test unit/collect_test.cpp LIBS slmc_engine TORCH)
endif()
