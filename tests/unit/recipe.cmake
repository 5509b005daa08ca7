slmc_test(recipe_decode_test unit/recipe_decode_test.cpp LIBS slmc_recipe)
