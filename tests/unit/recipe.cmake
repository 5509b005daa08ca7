slmc_test(recipe_decode_test unit/recipe_decode_test.cpp LIBS slmc_recipe)
slmc_test(recipe_resolve_test unit/recipe_resolve_test.cpp LIBS slmc_recipe slmc_ir)
slmc_test(recipe_run_test unit/recipe_run_test.cpp unit/recipe_kill_test.cpp LIBS slmc_recipe slmc_ir)
