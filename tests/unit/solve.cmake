if(SLMC_ENGINE)
  slmc_test(solve_test unit/solve_test.cpp unit/moments_test.cpp LIBS slmc_engine Eigen3::Eigen TORCH)
endif()
