#include "apps/slmc/front_stages.h"

#include <filesystem>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/cancel.h"
#include "core/dtype.h"
#include "ir/cost.h"
#include "ir/plan.h"
#include "ir/write.h"

namespace slmc::cli {
namespace {

using stage::Setting;
using stage::Type;
using Format = std::vector<std::pair<std::string, std::string>>;

Setting to_setting() {
  return {.name = "to", .type = Type::Choice, .fallback = "hf", .help = "What to write: a Hugging Face folder or a GGUF file.",
          .choices = {"hf", "gguf"}};
}

Setting type_setting() {
  return {.name = "type", .type = Type::Choice,
          .help = "Type of the weights; unset keeps the stored ones. Block types (q*) are for GGUF only.",
          .choices = {"f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0"}};
}

ir::Progress progress_to(const recipe::Sink& sink, const std::string& what) {
  return {.tick = [&sink, what](std::int64_t done, std::int64_t all) {
    cancel_point("nothing was written");
    sink({{"event", "progress"}, {"what", what}, {"done", done}, {"of", all}, {"unit", "bytes"}});
  }};
}

std::optional<DType> dense_type(const std::string& type) {
  if (type.empty()) return std::nullopt;
  if (type == "f32") return DType::F32;
  if (type == "f16") return DType::F16;
  if (type == "bf16") return DType::BF16;
  throw Error(ErrorKind::Recipe, "the type of a Hugging Face folder must be f32, f16 or bf16, but is " + type,
              "write a GGUF file, or use the stage quantize with to: packed");
}

// `format` is the plan's; a type that was asked for comes first, so that the plan's exceptions stay.
void write(const ir::Model& model, Format format, const stage::Job& job, const recipe::Sink& sink) {
  const std::string type = job.settings.has("type") ? job.settings.text("type") : "";
  if (job.settings.text("to") == "gguf") {
    if (!type.empty()) format.insert(format.begin(), {"*", type});
    ir::write_gguf(model, job.out, format, progress_to(sink, "writing " + std::filesystem::path(job.out).filename().string()));
  } else {
    ir::write_hf(model, job.out, dense_type(type), progress_to(sink, "writing " + std::filesystem::path(job.out).filename().string()));
  }
}

}  // namespace

const stage::StageInfo& convert_info() {
  static const stage::StageInfo info = {
      .name = "convert",
      .summary = "write a model in another container or type, values otherwise unchanged",
      .needs = {.dense = false, .engine = false},
      .settings = {to_setting(), type_setting()},
  };
  return info;
}

const stage::StageInfo& edit_info() {
  static const stage::StageInfo info = {
      .name = "edit",
      .summary = "change a model as a plan file says",
      .needs = {.dense = false, .engine = false},
      .settings = {{.name = "plan", .type = Type::Path, .help = "Plan file: which entries stay, what is replaced (`slmc help plans`).",
                    .required = true},
                   to_setting(), type_setting()},
  };
  return info;
}

bool is_front_stage(const std::string& op) { return op == convert_info().name || op == edit_info().name; }

Json run_front_stage(const Context& context, const stage::Job& job, const recipe::Sink& sink) {
  ir::Model model = load_model(context, job.model);
  Format format;
  if (job.op == edit_info().name) {
    const ir::Plan plan = ir::read_plan(job.settings.text("plan"));
    ir::require_ok(ir::check(plan, model), job.settings.text("to"));
    model = ir::apply(plan, model);
    format = plan.format;
  }
  write(model, std::move(format), job, sink);
  const ir::Cost cost = ir::cost(model);
  return {{"event", "result"}, {"parameters", cost.parameters}};
}

}  // namespace slmc::cli
