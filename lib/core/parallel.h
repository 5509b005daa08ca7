#pragma once
// Threads for torch-free code. Work is cut into the same pieces for any number of threads, so results are too.
#include <cstdint>
#include <functional>

namespace slmc {

void set_threads(int n);      // once, by main(); 0 = number of cores
int threads();
// Calls body(i) for i in [0, pieces) from up to threads() threads. Rethrows the exception of the lowest failing piece.
void parallel_for(std::int64_t pieces, const std::function<void(std::int64_t)>& body);

}  // namespace slmc
