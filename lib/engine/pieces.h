#pragma once
// Threads for work whose result must have the same bytes for any number of them.
//
// A matrix product or a factorisation that several threads share may add up in another order than on one thread. So work is
// cut into the same pieces always, and each piece stays on one thread from start to end, with every library inside it told so.
#include <cstdint>
#include <functional>

namespace slmc::engine {

// Calls body(i) for i in [0, pieces), each on one thread; the pieces are shared among at::get_num_threads() threads, which is
// restored afterwards. Call it outside of other parallel regions. Throws one of the exceptions that bodies threw.
void for_pieces(std::int64_t pieces, const std::function<void(std::int64_t)>& body);

}  // namespace slmc::engine
