if(SLMC_ENGINE)
  slmc_test(quantization_test unit/gptq_test.cpp unit/grid_test.cpp unit/quantize_test.cpp LIBS slmc_quantization Eigen3::Eigen TORCH)
endif()
