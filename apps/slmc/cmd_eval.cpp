// eval, compare: quality of one model, and of two side by side.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "apps/slmc/commands.h"
#include "apps/slmc/executor.h"
#include "apps/slmc/inspect.h"
#include "apps/slmc/output_file.h"
#include "apps/slmc/shared_options.h"
#include "core/units.h"
#include "report/html.h"
#include "stage/measures.h"

namespace slmc::cli {
namespace {

namespace fs = std::filesystem;

// --ppl A --ppl B --choices C: three tasks that share --window, --windows, --first and --per-class.
Json tasks_of(const Context& context) {
  Json out = Json::array();
  for (const char* kind : {"ppl", "choices", "pairs", "classify"}) {
    for (const std::string& file : context.args.all(kind)) {
      Json task = {{kind, fs::absolute(file).string()}};
      std::vector<std::string> more = {"first"};
      if (std::string(kind) == "ppl") more = {"window", "windows"};
      if (std::string(kind) == "classify") more = {"per_class"};
      for (const std::string& key : more) task[key] = context.args.integer(key);
      out.push_back(std::move(task));
    }
  }
  return out;
}

void require_readable(const Context& context) {
  for (const char* kind : {"ppl", "choices", "pairs", "classify"}) {
    for (const std::string& file : context.args.all(kind)) require_file(file, ErrorKind::Data);
  }
}

// Opens the model's headers: wrong paths, broken headers and windows that it is too short for are told before LibTorch is loaded.
void require_measurable(const Context& context, const std::string& where) {
  const ir::Model model = load_model(context, where);
  const std::int64_t context_length = model.decoder().context, window = context.args.integer("window");
  if (context.args.all("ppl").empty() || context_length <= 0 || window <= context_length) return;
  throw Error(ErrorKind::Usage, fmt::format("the option --window must be at most {} tokens, the context of {}, but is {}", context_length, where, window));
}

stage::Job eval_job(const Context& context, const std::string& model, const std::string& reference) {
  require_readable(context);
  require_measurable(context, model);
  stage::Job job = new_job(context, "eval", model);
  job.settings.set("tasks", {.value = std::make_shared<const Json>(tasks_of(context))});
  if (context.args.has("save_logits")) job.settings.set("save_logits", {.value = fs::absolute(context.args.text("save_logits")).string()});
  if (!reference.empty()) {
    require_measurable(context, reference);
    job.models["reference"] = new_job(context, "eval", reference).model;
  }
  return job;
}

std::string file_of(const Json& task) { return fs::path(task.value("file", std::string())).filename().string(); }

// How the numbers were taken: without it they can't be compared. Not in --plain, whose reader wants rows.
void show_protocols(Context& context, const Json& tasks) {
  if (context.args.flag("plain")) return;
  for (const Json& task : tasks) {
    const std::string how = task.contains("protocol") ? task.value("protocol", std::string()) : fmt::format("{} items", task.value("items", 0));
    context.term.text(fmt::format("{}: {}", file_of(task), how));
  }
}

// A metric per row: what, file, value.
void add_rows(report::Table& table, const Json& task) {
  for (const char* metric : {"ppl", "bits_per_byte", "reference_ppl", "ppl_ratio", "reference_bits_per_byte", "bits_per_byte_ratio", "kl", "top1_agreement", "acc",
                             "acc_norm", "accuracy", "latency", "memory"}) {
    if (task.contains(metric)) table.rows.push_back({report::metric_title(metric), file_of(task), report::metric_text(metric, task[metric].get<double>())});
  }
}

// A recipe shows a dash for a task that a model can't be asked; who asks by hand must be told.
void require_all_measured(const Context& context, const Json& tasks) {
  for (const Json& task : tasks) {
    if (!task.contains("skipped")) continue;
    throw Error(ErrorKind::Model, Place{context.args.text("MODEL"), 0, 0, 1, {}}, "the model must carry the folder 'classify' to be asked for classes, but does not",
                "slmc train --objective classify makes one");
  }
}

int run_eval(Context& context) {
  if (tasks_of(context).empty()) throw Error(ErrorKind::Usage, "something must be measured: --ppl FILE, --choices FILE, --pairs FILE or --classify FILE, but none is given");
  if (context.args.has("save_logits")) require_free_file(context.args.text("save_logits"), context.args.flag("force"));
  const Json result = run_alone(context, eval_job(context, context.args.text("MODEL"), context.args.text("reference")));
  require_all_measured(context, result["tasks"]);
  if (context.term.json()) {
    context.term.document(context.command, {{"model", context.args.text("MODEL")}, {"reference", context.args.text("reference")},
                                   {"tasks", result["tasks"]}, {"measured", result["measured"]}});
    return kDone;
  }
  report::Table table{.titles = {"metric", "file", "value"}, .rows = {}, .right = {false, false, true}};
  for (const Json& task : result["tasks"]) add_rows(table, task);
  context.term.table(table);
  show_protocols(context, result["tasks"]);
  return kDone;
}

struct Side {
  Summary summary;
  Json tasks;
};

report::Table compare_table(const Side& a, const Side& b) {
  report::Table out{.titles = {"what", "A", "B", "B / A"}, .rows = {}, .right = {false, true, true, true}};
  const auto row = [&](const std::string& what, double x, double y, const std::string& xs, const std::string& ys) {
    out.rows.push_back({what, xs, ys, x != 0 ? fmt::format("{:.3f}", y / x) : ""});
  };
  const auto bytes = [](std::uint64_t n) { return format_bytes(n); };
  const auto count = [](std::int64_t n) { return format_count(static_cast<std::uint64_t>(n)); };
  const ir::Cost& ca = a.summary.cost;
  const ir::Cost& cb = b.summary.cost;
  row("parameters", static_cast<double>(ca.parameters), static_cast<double>(cb.parameters), count(ca.parameters), count(cb.parameters));
  row("weight files", static_cast<double>(a.summary.file_bytes), static_cast<double>(b.summary.file_bytes), bytes(a.summary.file_bytes), bytes(b.summary.file_bytes));
  row("FLOP per token", ca.flops_per_token, cb.flops_per_token, fmt::format("{:.3g}", ca.flops_per_token), fmt::format("{:.3g}", cb.flops_per_token));
  row("keys and values per token", static_cast<double>(ca.kv_bytes_per_token), static_cast<double>(cb.kv_bytes_per_token),
      bytes(static_cast<std::uint64_t>(ca.kv_bytes_per_token)), bytes(static_cast<std::uint64_t>(cb.kv_bytes_per_token)));
  for (std::size_t i = 0; i < b.tasks.size(); ++i) {
    const std::string file = file_of(b.tasks[i]);
    for (const char* metric : {"ppl", "bits_per_byte", "acc", "acc_norm", "accuracy", "latency", "memory"}) {
      if (!a.tasks[i].contains(metric) || !b.tasks[i].contains(metric)) continue;
      const double x = a.tasks[i][metric], y = b.tasks[i][metric];
      row(report::metric_title(metric) + " " + file, x, y, report::metric_text(metric, x), report::metric_text(metric, y));
    }
    for (const char* metric : {"kl", "top1_agreement"}) {
      if (b.tasks[i].contains(metric)) out.rows.push_back({report::metric_title(metric) + " " + file, "", report::metric_text(metric, b.tasks[i][metric]), ""});
    }
  }
  return out;
}

int run_compare(Context& context) {
  const std::string a = context.args.text("A"), b = context.args.text("B");
  const auto side = [&](const std::string& model, const std::string& reference) {      // without a task: size and cost only
    const Json tasks = tasks_of(context).empty() ? Json::array() : run_alone(context, eval_job(context, model, reference))["tasks"];
    return Side{summarise(load_model(context, model)), tasks};
  };
  const Side left = side(a, ""), right = side(b, a);
  if (context.term.json()) {
    context.term.document(context.command, {{"a", {{"model", to_json(left.summary)}, {"tasks", left.tasks}}},
                                      {"b", {{"model", to_json(right.summary)}, {"tasks", right.tasks}}}});
  } else {
    context.term.table(compare_table(left, right));
    show_protocols(context, right.tasks);
  }
  return kDone;
}

std::vector<Option> task_options() {
  std::vector<Option> out = options_of(stage::eval_task_table(), "What to measure");
  for (Option& option : out) option.repeat = option.setting.type == stage::Type::Path;
  return out;
}

std::vector<Option> eval_options() {
  std::vector<Option> out = task_options();
  out.push_back({.setting = {.name = "reference", .type = stage::Type::Model, .help = "Also measure KL and agreement against this model."}});
  out.push_back(path_option("save_logits", 0, "FILE", "Write the logits of the first perplexity task to this safetensors file."));
  return out;
}

}  // namespace

Command eval_command() {
  return {.name = "eval",
          .summary = stage::eval_info().summary,
          .loads = Loads::Engine,
          .run = run_eval,
          .shares = {.json = true, .plain = true, .device = true, .threads = true, .max_ram = true, .events = true, .force = true},
          .positionals = {{.name = "MODEL", .help = "The model to measure."}},
          .options = eval_options(),
          .examples = {{"slmc eval out/small.gguf --ppl configs/data/wiki.test.txt --reference models/m.gguf", "perplexity, KL, agreement"},
                       {"slmc eval models/m.gguf --choices configs/data/hellaswag.200.jsonl --first 200 --json", "multiple choice with each pick"},
                       {"slmc eval models/m.gguf --ppl text.txt --window 512 --windows 2 --save-logits logits.safetensors", "for comparison elsewhere"}},
          .json = {{"model", "as given"},
                   {"reference", "as given, or empty"},
                   {"tasks", "in the order ppl, choices, pairs, classify. ppl: file, window, windows, tokens, bytes, protocol, nll, ppl, bits_per_byte and with a "
                             "reference reference_ppl, ppl_ratio, kl (nats per token), top1_agreement; of a whole text (--windows 0) "
                             "reference_bits_per_byte, bits_per_byte_ratio. choices: items, acc, acc_norm, picks, "
                             "picks_norm. pairs: items, acc, picks (0 = the good one). classify: items, classes, accuracy, nll, latency (seconds), memory (bytes), picks, protocol"},
                   {"measured", "seconds, cpu_seconds, peak_bytes"}}};
}

Command compare_command() {
  return {.name = "compare",
          .summary = "two models side by side: size, cost, quality",
          .loads = Loads::Engine,
          .run = run_compare,
          .shares = {.json = true, .plain = true, .device = true, .threads = true, .max_ram = true, .events = true},
          .positionals = {{.name = "A", .help = "The reference."}, {.name = "B", .help = "The other model."}},
          .options = task_options(),
          .examples = {{"slmc compare models/m.gguf out/small.gguf --ppl configs/data/wiki.test.txt", "what the bytes saved cost"}},
          .json = {{"a", "model (as of inspect) and tasks (as of eval)"}, {"b", "the same; its tasks have A as reference"}}};
}

}  // namespace slmc::cli
