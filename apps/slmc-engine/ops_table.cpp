#include "apps/slmc-engine/ops_table.h"

namespace slmc {

engine::Ops ops_table() {
  engine::Ops ops;
  engine::add_measures(ops);
  return ops;
}

}  // namespace slmc
