// doctor: is everything here that slmc needs? Works without the engine, and says so.
#include <fmt/format.h>
#include <unistd.h>

#include <nlohmann/json.hpp>
#include <thread>

#include "apps/slmc/build_info.h"
#include "apps/slmc/commands.h"
#include "apps/slmc/executor.h"
#include "core/file.h"
#include "core/units.h"
#include "ir/template.h"

namespace slmc::cli {
namespace {

namespace fs = std::filesystem;

struct Finding {
  std::string what, value;
  bool good = true;
};

std::vector<std::string> families(const Context& context) {
  std::vector<std::string> out;
  for (const auto& t : ir::load_templates(context.around.templates)) out.push_back(t->family);
  return out;
}

bool writable(const fs::path& folder) {
  std::error_code code;
  fs::path there = folder;
  while (!there.empty() && !fs::exists(there, code)) there = there.parent_path();
  return !there.empty() && access(there.c_str(), W_OK) == 0;
}

std::uint64_t memory_bytes() {
  return static_cast<std::uint64_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
}

// The engine's document, or why there is none.
std::optional<Json> ask_engine(const Context& context, std::string& why) {
  try {
    Json said = make_executor(context)(new_job(context, "doctor", ""), [](const Json&) {});
    said.erase("event");
    return said;
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::Interrupted) throw;
    why = error.message();
    if (!error.diagnostics().front().hint.empty()) why += "; " + error.diagnostics().front().hint;
    return std::nullopt;
  }
}

std::string gflops(const Json& gemm, const char* name) {
  const Json rate = gemm.value(name, Json());
  return rate.is_number() ? fmt::format("{:.0f} GFLOP/s", rate.get<double>()) : "not measured";
}

void add_engine(std::vector<Finding>& out, const Json& said) {
  const Json gemm = said.value("gemm", Json::object());
  out.push_back({"torch", said.value("torch", std::string("?")) + ", built for " + said.value("torch_built", std::string("?"))});
  out.push_back({"device", said.value("device", std::string("?"))});
  out.push_back({"matrix products", fmt::format("{} (MKL {}, oneDNN {}, peak {})", gemm.value("chosen", std::string("?")), gflops(gemm, "mkl_gflops"),
                                                gflops(gemm, "onednn_gflops"), gflops(gemm, "peak_gflops"))});
}

int run_doctor(Context& context) {
  const BuildInfo build = build_info();
  const std::vector<std::string> known = families(context);
  std::string why;
  const std::optional<Json> engine = ask_engine(context, why);
  const bool cache = !context.around.cache.empty() && writable(context.around.cache);
  if (context.term.json()) {
    context.term.document(context.command, {{"version", build.version}, {"revision", build.revision}, {"families", known},
                                     {"cores", std::thread::hardware_concurrency()}, {"memory_bytes", memory_bytes()},
                                     {"cache", context.around.cache.string()}, {"cache_writable", cache},
                                     {"engine", engine ? *engine : Json()}, {"engine_problem", why}});
    return engine && cache ? kDone : exit_code(ErrorKind::Resource);
  }
  std::vector<Finding> findings = {
      {"slmc", build.version + " (" + build.revision + "), " + build.compiler},
      {"families", fmt::format("{}", fmt::join(known, ", "))},
      {"cores and memory", fmt::format("{}, {}", std::thread::hardware_concurrency(), format_bytes(memory_bytes()))},
      {"free disk here", format_bytes(free_bytes(context.around.folder))},
      {"cache", context.around.cache.string() + (cache ? "" : ": can't be written"), cache},
      {"engine", engine ? context.around.engine.string() : why, engine.has_value()},
  };
  if (engine) add_engine(findings, *engine);
  report::Table table{.titles = {"", "what", "found"}, .rows = {}, .right = {false, false, false}};
  for (const Finding& f : findings) table.rows.push_back({f.good ? "ok" : "!!", f.what, f.value});
  context.term.table(table);
  return engine && cache ? kDone : exit_code(ErrorKind::Resource);
}

}  // namespace

Command doctor_command() {
  return {.name = "doctor",
          .summary = "look whether everything is here that slmc needs, and how fast it is",
          .loads = Loads::Engine,
          .run = run_doctor,
          .shares = {.json = true, .plain = true, .device = true, .threads = true},
          .examples = {{"slmc doctor", "engine, LibTorch, devices, rates, cache; exit code 5 when something is missing"}},
          .json = {{"version", "of slmc"}, {"revision", "of its sources"}, {"families", "architectures that it reads"},
                   {"cores", "of this machine"}, {"memory_bytes", "of this machine"}, {"cache", "folder for statistics"},
                   {"cache_writable", "whether it can be"}, {"engine", "torch, torch_built, cuda, device, devices, gemm, threads; or null"},
                   {"engine_problem", "why there is no engine, or empty"}}};
}

}  // namespace slmc::cli
