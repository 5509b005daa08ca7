slmc_fuzz(recipe LIBS slmc_recipe)
