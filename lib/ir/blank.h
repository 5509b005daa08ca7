#pragma once
// from_config of model.h for families that only a folder of templates knows; hf_cache is not used.
#include "ir/model.h"

namespace slmc::ir {

Model from_config(const std::filesystem::path& folder,
                  const std::function<io::TensorData(const TensorSpec&, std::int64_t blocks)>& make,
                  const LoadOptions& options);

}  // namespace slmc::ir
