slmc_test(ir_dim_test unit/ir_dim_test.cpp LIBS slmc_ir)
if(TARGET slmc_text)
  slmc_test(ir_template_test unit/ir_template_test.cpp LIBS slmc_ir)
endif()
