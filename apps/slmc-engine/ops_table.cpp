#include "apps/slmc-engine/ops_table.h"

#include "distillation/ops.h"

namespace slmc {

engine::Ops ops_table() {
  engine::Ops ops;
  engine::add_measures(ops);
  distillation::add_ops(ops);
  return ops;
}

}  // namespace slmc
