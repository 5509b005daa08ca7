#include "apps/slmc/build_info.h"

#include "slmc_revision.h"      // made by cmake/revision.cmake on every build

namespace slmc::cli {

BuildInfo build_info() { return {SLMC_VERSION, SLMC_REVISION, SLMC_COMPILER, SLMC_BUILD_TYPE, SLMC_TORCH}; }

}  // namespace slmc::cli
