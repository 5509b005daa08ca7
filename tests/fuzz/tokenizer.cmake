slmc_fuzz(tokenizer LIBS slmc_text slmc_io)
