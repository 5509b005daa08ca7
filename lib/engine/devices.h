#pragma once
// Which devices there are, and making one ready. The programs link only LibTorch's CPU half; its CUDA half is loaded when asked for.
#include <c10/core/Device.h>

#include <string>
#include <vector>

namespace slmc::engine {

// "cpu", "cuda", "cuda:N". Loads libtorch_cuda from beside libtorch_cpu for the latter two. Error(Resource) when there is no such
// device or the library can't be loaded, with the reason; Error(Usage) for another word.
c10::Device open_device(const std::string& word);

bool has_cuda();                                     // libtorch_cuda is loaded and sees a GPU
std::string device_name(c10::Device device);         // "cpu", or the GPU's name
std::vector<std::string> device_names();             // "cpu" and every GPU that the driver shows
std::string running_torch();                         // "2.13.0": of the library in use, not of the headers

}  // namespace slmc::engine
