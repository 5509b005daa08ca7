#include "apps/slmc/context.h"

#include <algorithm>
#include <thread>

namespace slmc::cli {

ir::Model load_model(const Context& context, const std::string& where) {
  return ir::load(where, {.hf_cache = context.around.hf_cache, .templates = context.around.templates});
}

int threads(const Context& context) {
  std::int64_t n = context.args.has("threads") ? context.args.integer("threads") : context.around.threads;
  if (n == 0) n = std::thread::hardware_concurrency();
  return static_cast<int>(std::max<std::int64_t>(n, 1));
}

std::string device(const Context& context) {
  return context.args.has("device") ? context.args.text("device") : context.around.device;
}

std::uint64_t max_ram(const Context& context) {
  return static_cast<std::uint64_t>(context.args.maybe_integer("max_ram").value_or(0));
}

}  // namespace slmc::cli
