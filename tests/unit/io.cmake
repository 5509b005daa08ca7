slmc_test(safetensors_test unit/safetensors_test.cpp unit/allocation_limit.cpp LIBS slmc_io)
slmc_test(gguf_test unit/gguf_test.cpp unit/allocation_limit.cpp LIBS slmc_io)
slmc_test(statistics_test unit/statistics_test.cpp LIBS slmc_io)
