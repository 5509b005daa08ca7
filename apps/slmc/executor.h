#pragma once
// Runs one job: in this process when the stage needs no engine (convert, edit), else in a slmc-engine process of its own.
#include <string>

#include "apps/slmc/context.h"
#include "recipe/run.h"

namespace slmc::cli {

// A job of `op` with the shared options filled in; paths absolute.
stage::Job new_job(const Context& context, const std::string& op, const std::string& model);

// `go_on`: how to continue what a dead or interrupted engine leaves behind; "" = nothing is left.
recipe::Executor make_executor(const Context& context, std::string go_on = {});

// One job on the engine, its events shown and logged; the fields of its result without "event".
Json run_alone(const Context& context, const stage::Job& job);

// The engine's program, or Error(Resource) saying where it was looked for.
const std::filesystem::path& require_engine(const Context& context);

// What the engine says about itself, by its op "doctor"; part of every stage key. Nothing when there is no engine.
std::optional<recipe::EngineFacts> engine_facts(const Context& context, const std::string& gemm);

}  // namespace slmc::cli
