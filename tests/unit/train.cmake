if(SLMC_ENGINE)
  slmc_test(train_test unit/train_head_loss_test.cpp unit/train_adamw_test.cpp unit/trainer_test.cpp unit/functions_test.cpp
    LIBS slmc_train slmc_engine TORCH)
  slmc_test(distillation_test unit/distillation_forward_kl_test.cpp unit/distillation_train_test.cpp unit/classify_test.cpp unit/lora_test.cpp LIBS slmc_distillation TORCH)
endif()
