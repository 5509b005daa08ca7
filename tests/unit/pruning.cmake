if(SLMC_ENGINE)
  slmc_test(pruning_test unit/prune_test.cpp unit/drop_test.cpp unit/drop_healed_test.cpp unit/drop_stage_test.cpp unit/merge_test.cpp unit/stability_test.cpp LIBS slmc_pruning TORCH)
  slmc_test(planner_test unit/planner_test.cpp LIBS slmc_pruning nlohmann_json::nlohmann_json TORCH)
  slmc_test(vocab_test unit/vocab_test.cpp LIBS slmc_pruning nlohmann_json::nlohmann_json TORCH)
  slmc_test(criteria_test unit/criteria_test.cpp unit/gradients_test.cpp unit/llm_pruner_test.cpp unit/prune_auto_test.cpp
    LIBS slmc_pruning Eigen3::Eigen TORCH)
endif()
