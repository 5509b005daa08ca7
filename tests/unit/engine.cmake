# SLMC_TEST_DEVICE=cuda runs the same tests on a GPU (label gpu; skipped where LibTorch has no CUDA half).
if(SLMC_ENGINE)
  slmc_test(engine_test unit/engine_main.cpp unit/engine_decoder_test.cpp unit/engine_law_test.cpp unit/engine_head_test.cpp
    unit/engine_use_test.cpp LIBS slmc_engine TORCH)
  if(Torch_CUDA_LIBRARY)
    add_test(NAME engine_test_cuda COMMAND engine_test)
    set_tests_properties(engine_test_cuda PROPERTIES LABELS gpu ENVIRONMENT "SLMC_TEST_DEVICE=cuda" TIMEOUT 900)
  endif()
endif()
