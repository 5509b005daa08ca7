// Copies a folder's tensors into shards of at most so many bytes, with the writer that makes shards of 5 GB for large models.
// usage: write_shards FROM TO BYTES
#include <cstdio>
#include <cstdlib>
#include <exception>

#include "io/safetensors.h"

int main(int argc, char** argv) try {
  if (argc != 4) return 2;
  const auto files = slmc::io::open_safetensors_folder(argv[1]);
  std::vector<slmc::io::SafetensorsWriter::Entry> entries;
  for (const auto& file : files) {
    for (const auto& t : file.tensors()) entries.push_back({t.name, t.dtype, t.shape});
  }
  slmc::io::SafetensorsWriter writer(argv[2], entries, {{"format", "pt"}}, std::strtoull(argv[3], nullptr, 10));
  for (const auto& file : files) {
    for (const auto& t : file.tensors()) writer.write(t.name, file.read(t.name).bytes);
  }
  writer.finish();
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
