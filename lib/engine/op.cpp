#include "engine/op.h"

#include <ATen/ops/empty.h>
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "core/cancel.h"
#include "engine/ops.h"

namespace slmc::engine {

OpContext::OpContext(const stage::Job& the_job, stage::Events& the_events, at::Device the_device)
    : job(the_job), events(the_events), device(the_device) {}

const ir::Model& OpContext::model() {
  if (!model_) model_ = ir::load(job.model, {.templates = job.templates});
  return *model_;
}

ir::Model OpContext::other(const std::string& name) {
  const auto it = job.models.find(name);
  if (it == job.models.end()) throw Error(ErrorKind::Usage, "the model '" + name + "' must be given, but is not", "--" + name + " MODEL");
  return ir::load(it->second, {.templates = job.templates});
}

std::optional<data::WindowSource> OpContext::source(const std::string& which) {
  const Json& specs = *job.data;
  if (!specs.contains(which)) return std::nullopt;
  const auto& tokenizer = model().tokenizer();
  if (!tokenizer) throw Error(ErrorKind::Model, "the model must have a tokenizer to read texts with, but has none", model().source());
  return data::WindowSource(data::data_spec_from_json(specs[which], "the job", "data." + which), *tokenizer);
}

at::Tensor OpContext::windows(const std::string& which) {
  const auto texts = source(which);
  if (!texts) throw Error(ErrorKind::Usage, "data '" + which + "' must be given, but is not");
  const data::DataSpec& spec = texts->spec();
  SLMC_CHECK(spec.samples > 0);
  if (const std::int64_t there = texts->tokens_per_epoch() / spec.seq; there < spec.samples) {
    events.warning(fmt::format("data '{}' has text for {} windows of {} tokens, not {}: the same text is read again", which, there, spec.seq, spec.samples));
  }
  at::Tensor out = at::empty({spec.samples, spec.seq}, at::kLong);
  auto* to = out.mutable_data_ptr<std::int64_t>();
  for (std::int64_t i = 0; i < spec.samples; ++i) {
    cancel_point("nothing was written");
    for (const std::int32_t id : texts->at(i).ids) *to++ = id;
  }
  return out;
}

ir::Progress OpContext::writing() {
  return {[this](std::int64_t done, std::int64_t all) {
    cancel_point("nothing was written");
    events.progress("bytes written", done, all);
  }};
}

void add_op(Ops& ops, const stage::StageInfo& info, Op run) {
  SLMC_CHECK(!ops.contains(info.name));
  ops[info.name] = {&info, std::move(run)};
}

void add_measures(Ops& ops) {
  add_eval(ops);
  add_bench(ops);
  add_generate(ops);
}

}  // namespace slmc::engine
