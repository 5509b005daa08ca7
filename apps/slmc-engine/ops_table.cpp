#include "apps/slmc-engine/ops_table.h"

#include "distillation/ops.h"
#include "pruning/ops.h"
#include "quantization/quantize.h"

namespace slmc {

engine::Ops ops_table() {
  engine::Ops ops;
  engine::add_measures(ops);
  pruning::add_ops(ops);
  distillation::add_ops(ops);
  quantization::add_ops(ops);
  return ops;
}

}  // namespace slmc
