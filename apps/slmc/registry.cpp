#include "apps/slmc/registry.h"

#include "apps/slmc/front_stages.h"
#include "distillation/distill_info.h"
#include "distillation/train_info.h"
#include "pruning/drop_info.h"
#include "pruning/prune_info.h"
#include "pruning/shear_info.h"
#include "quantization/quantize_info.h"

namespace slmc::cli {
namespace {

stage::Registry make() {
  stage::Registry out;
  out.add(pruning::drop_info());
  out.add(pruning::prune_info());
  out.add(pruning::shear_info());
  out.add(distillation::distill_info());
  out.add(distillation::train_info());
  out.add(quantization::quantize_info());
  out.add(convert_info());
  out.add(edit_info());
  return out;
}

}  // namespace

const stage::Registry& registry() {
  static const stage::Registry all = make();
  return all;
}

}  // namespace slmc::cli
