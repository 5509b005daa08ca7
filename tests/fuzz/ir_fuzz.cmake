slmc_fuzz(template LIBS slmc_ir)
slmc_fuzz(plan LIBS slmc_ir)
