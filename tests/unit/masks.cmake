if(SLMC_ENGINE)
  slmc_test(masks_test unit/masks_test.cpp LIBS slmc_pruning TORCH)
endif()
