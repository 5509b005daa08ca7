if(SLMC_ENGINE)
  slmc_test(pruning_test unit/prune_test.cpp unit/drop_test.cpp LIBS slmc_pruning TORCH)
endif()
