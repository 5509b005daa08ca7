#pragma once
// The stages that need no LibTorch and run in this program: convert and edit.
#include "apps/slmc/context.h"
#include "recipe/run.h"
#include "stage/info.h"

namespace slmc::cli {

const stage::StageInfo& convert_info();
const stage::StageInfo& edit_info();
bool is_front_stage(const std::string& op);

// Does the job: reads job.model, writes job.out. Returns {"event": "result", "parameters", "bytes"}.
Json run_front_stage(const Context& context, const stage::Job& job, const recipe::Sink& sink);

}  // namespace slmc::cli
