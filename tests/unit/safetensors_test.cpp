// lib/io/safetensors.h: one literal file per row of its table of refusals, round trips of every dtype,
// shards, damage.
#include "io/safetensors.h"

#include <gtest/gtest.h>

#include <cstring>
#include <set>

#include "core/error.h"
#include "tests/unit/damage.h"
#include "tests/unit/error_text.h"
#include "tests/unit/test_folder.h"

namespace slmc::io {
namespace {

namespace fs = std::filesystem;
using SafetensorsTest = FolderTest;

std::vector<std::byte> bytes_of(std::string_view text) {
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

// Length, header, data: a file by hand.
std::vector<std::byte> file_of(std::string_view header, std::string_view data) {
  std::string text(8, '\0');
  const std::uint64_t length = header.size();
  std::memcpy(text.data(), &length, 8);
  return bytes_of(text + std::string(header) + std::string(data));
}

std::string refusal(const std::vector<std::byte>& bytes) {
  return error_text([&] { SafetensorsFile::parse(bytes, "m.safetensors"); });
}

std::string refusal(std::string_view header, std::string_view data) { return refusal(file_of(header, data)); }

const std::string kGood =
    R"({"__metadata__":{"format":"pt"},"b":{"dtype":"F16","shape":[2,2],"data_offsets":[4,12]},"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}})";

TEST_F(SafetensorsTest, ReadsAFileMadeByHand) {
  const auto bytes = file_of(kGood, std::string("\0\0\x80\x3f\0\x3c\0\x40\0\x42\0\x44", 12));
  const SafetensorsFile file = SafetensorsFile::parse(bytes, "m.safetensors");
  ASSERT_EQ(file.tensors().size(), 2u);
  EXPECT_EQ(file.tensors()[0].name, "a");  // file order, not header order
  EXPECT_EQ(file.tensors()[1].offset, 8 + kGood.size() + 4);
  EXPECT_EQ(file.metadata().at("format"), "pt");
  const TensorData b = file.read("b");
  EXPECT_EQ(b.bytes.data(), bytes.data() + 8 + kGood.size() + 4);  // zero copy
  EXPECT_EQ(b.shape, (std::vector<std::int64_t>{2, 2}));
  EXPECT_EQ(b.to_floats(), (std::vector<float>{1, 2, 3, 4}));
  EXPECT_EQ(file.read("a").count(), 1);
  EXPECT_EQ(error_text([&] { file.read("c"); }),
            "m.safetensors: error: the tensor 'c' must be in the file, but is not\nhint: did you mean 'a'?");
}

TEST_F(SafetensorsTest, EmptyFilesAndTensorsAreLegal) {
  EXPECT_TRUE(SafetensorsFile::parse(file_of("{}", ""), "m").tensors().empty());
  const auto bytes = file_of(
      R"({"e":{"dtype":"F32","shape":[0,7],"data_offsets":[0,0]},"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}  )",
      "x");
  EXPECT_EQ(SafetensorsFile::parse(bytes, "m").read("e").count(), 0);
}

TEST_F(SafetensorsTest, Refusals) {
  const std::string m = "m.safetensors: error: ";
  EXPECT_EQ(refusal(bytes_of("abc")),
            m + "the length of the header must have 8 bytes, but only 3 are left (at byte 0)");
  EXPECT_EQ(
      refusal(bytes_of(std::string("\xff\xff\xff\xff\0\0\0\0", 8))),
      m + "the header must be at most 100000000 bytes, but is 4294967295\nhint: is this a safetensors file?");
  EXPECT_EQ(refusal(bytes_of(std::string("\x05\0\0\0\0\0\0\0{}", 10))),
            m + "the header must have 5 bytes, but only 2 are left (at byte 8)");
  EXPECT_EQ(refusal("[]", ""),
            m + "the header must begin with '{', but does not\nhint: is this a safetensors file?");
  EXPECT_EQ(refusal(R"({"a":{},"a":{}})", ""),
            "m.safetensors:1:9: error: a key must stand once in its object, but 'a' is repeated\n    1 | "
            "{\"a\":{},\"a\":{}}\n      |         ^~~");
  EXPECT_EQ(refusal(R"({"a":{"dtype":"F99","shape":[1],"data_offsets":[0,4]}})", "1234"),
            m + "the dtype of 'a' must be one that slmc reads, but is 'F99'");
  EXPECT_EQ(refusal(R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", "1234"),
            m + "the sizes of 'a' must not be negative, but are [-1]");
  EXPECT_EQ(refusal(R"({"a":{"dtype":"F32","shape":[1.5],"data_offsets":[0,4]}})", "1234"),
            m + "'a.shape' must be an array of whole numbers, but holds 1.5");
  EXPECT_EQ(refusal(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[-1,4]}})", "1234"),
            m + "the begin of 'a' must be a non-negative whole number, but is -1");
  EXPECT_EQ(refusal(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}})", "1234"),
            m + "the end of 'a' must not lie before its begin 4, but is 0");
  EXPECT_EQ(refusal(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0]}})", "1234"),
            m + "'a.data_offsets' must be two numbers, but is [0]");
  EXPECT_EQ(refusal(R"({"a":{"dtype":"F16","shape":[768,1536],"data_offsets":[0,4]}})", "1234"),
            m + "the data of 'a' must be 2359296 bytes (F16 [768, 1536]), but is 4");
  EXPECT_EQ(refusal(R"({"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,4]}})", "1234"),
            m + "the number of elements of 'a' must fit 64 bits, but is 4611686018427387904 x 4");
  EXPECT_EQ(refusal(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})", "12"),
            m + "the data of 'a' must begin at 0, where the data before it ends, but begins at 1");
  EXPECT_EQ(
      refusal(
          R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})",
          "123"),
      m + "the data of 'b' must begin at 2, where the data before it ends, but begins at 1");
  EXPECT_EQ(refusal(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", "12"),
            m + "the data must be 1 bytes as the header says, but 2 bytes follow the header");
  EXPECT_EQ(refusal(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"x":0}})", "1"),
            m + "the key 'a.x' must be a known one, but is not");
  EXPECT_EQ(refusal(R"({"__metadata__":{"a":1}})", ""), m + "the metadata 'a' must be a string, but is 1");
  EXPECT_EQ(refusal(R"({"a":3})", ""), m + "'a' must be an object, but is 3");
}

std::vector<std::byte> pattern(std::size_t size, unsigned seed) {
  std::vector<std::byte> out(size);
  for (std::size_t i = 0; i < size; ++i) out[i] = static_cast<std::byte>(i * 37 + seed);
  return out;
}

TEST_F(SafetensorsTest, EveryDtypeRoundTrips) {
  std::vector<SafetensorsWriter::Entry> entries;
  for (int i = kDTypeCount - 1; i >= 0; --i) {
    const auto type = static_cast<DType>(i);
    entries.push_back({std::string("t.") + std::string(to_string(type)), type, {3, i + 1}});
  }
  entries.push_back({"scalar", DType::F64, {}});
  for (const char* name : {"one", "two"}) {
    SafetensorsWriter writer = SafetensorsWriter::single(folder_ / name, entries, {{"k", "\xC3\xA4\"\n"}});
    for (std::size_t i = entries.size(); i-- > 0;) {  // any order
      const auto& e = entries[i];
      std::size_t count = e.shape.empty() ? 1 : static_cast<std::size_t>(e.shape[0] * e.shape[1]);
      writer.write(e.name, pattern(count * size_of(e.dtype), static_cast<unsigned>(i)));
    }
    writer.finish();
  }
  EXPECT_EQ(read_text(folder_ / "one"), read_text(folder_ / "two"));
  const SafetensorsFile file = SafetensorsFile::open(folder_ / "one");
  EXPECT_EQ(file.metadata().at("k"), "\xC3\xA4\"\n");
  ASSERT_EQ(file.tensors().size(), entries.size());
  for (std::size_t i = 0; i < entries.size(); ++i) {
    const StoredTensor* t = file.find(entries[i].name);
    ASSERT_NE(t, nullptr);
    EXPECT_EQ(t->dtype, entries[i].dtype);
    EXPECT_EQ(t->shape, entries[i].shape);
    EXPECT_EQ(t->offset % size_of(t->dtype), 0u) << t->name;  // aligned for its readers
    const TensorData data = file.read(t->name);
    EXPECT_EQ(std::vector(data.bytes.begin(), data.bytes.end()), pattern(t->bytes, static_cast<unsigned>(i)));
  }
}

void write_shards(const fs::path& folder, std::uint64_t shard_bytes) {
  std::vector<SafetensorsWriter::Entry> entries;
  for (int i = 0; i < 5; ++i) entries.push_back({"t" + std::to_string(i), DType::U8, {10}});
  SafetensorsWriter writer(folder, entries, {{"format", "pt"}}, shard_bytes);
  for (unsigned i = 0; i < 5; ++i) writer.write("t" + std::to_string(i), pattern(10, i));
  writer.finish();
}

TEST_F(SafetensorsTest, ShardsHaveAnIndex) {
  write_shards(folder_, 25);
  EXPECT_EQ(names(), (Names{"model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors",
                            "model-00003-of-00003.safetensors", "model.safetensors.index.json"}));
  EXPECT_EQ(read_text(folder_ / "model.safetensors.index.json").substr(0, 70),
            "{\n  \"metadata\": {\n    \"total_size\": 50\n  },\n  \"weight_map\": {\n    \"t0\"");
  std::set<std::string> seen;
  for (const SafetensorsFile& file : open_safetensors_folder(folder_)) {
    EXPECT_EQ(file.metadata().at("format"), "pt");
    for (const StoredTensor& t : file.tensors()) {
      seen.insert(t.name);
      const TensorData data = file.read(t.name);
      EXPECT_EQ(std::vector(data.bytes.begin(), data.bytes.end()),
                pattern(10, static_cast<unsigned>(t.name[1] - '0')));
    }
  }
  EXPECT_EQ(seen.size(), 5u);
}

TEST_F(SafetensorsTest, OneFileWhenItFits) {
  write_shards(folder_, 50);
  EXPECT_EQ(names(), Names{"model.safetensors"});
  EXPECT_EQ(open_safetensors_folder(folder_).size(), 1u);
}

TEST_F(SafetensorsTest, FolderRefusals) {
  const std::string folder = folder_.string(), index = (folder_ / "model.safetensors.index.json").string();
  auto text = [&] { return error_text([&] { open_safetensors_folder(folder_); }); };
  auto with_index = [&](std::string_view json) {
    write_text(index, json);
    return text();
  };
  EXPECT_EQ(
      text(),
      folder +
          ": error: the folder must hold model.safetensors or model.safetensors.index.json, but has neither");
  EXPECT_EQ(with_index(R"({"weight_map":{"a":"../up.safetensors"}})"),
            index + ": error: a shard must be a file name in the same folder, but is '../up.safetensors'");
  EXPECT_EQ(with_index(R"({"weight_map":{"a":".."}})"),
            index + ": error: a shard must be a file name in the same folder, but is '..'");
  EXPECT_EQ(with_index(R"({"weight_map":{"a":7}})"),
            index + ": error: the shard of 'a' must be a string, but is 7");
  EXPECT_EQ(with_index(R"({})"), index + ": error: 'weight_map' must be present, but is missing");
  EXPECT_EQ(with_index(R"({"weight_map":{"a":"none"}})"),
            folder + "/none: error: the file must be readable, but is not: No such file or directory");
  for (const char* name : {"s1", "s2"}) {
    SafetensorsWriter writer = SafetensorsWriter::single(folder_ / name, {{"a", DType::U8, {1}}});
    writer.write("a", pattern(1, 0));
    writer.finish();
  }
  EXPECT_EQ(with_index(R"({"weight_map":{"b":"s1"}})"),
            index + ": error: the tensor 'b' must be in 's1' as the index says, but is in no shard");
  EXPECT_EQ(with_index(R"({"weight_map":{"a":"s1","b":"s2"}})"),
            index + ": error: the tensor 'a' must stand in one shard, but is in 's1' and 's2'");
  EXPECT_EQ(with_index(R"({"weight_map":{"a":"s1"}})"), "no error");
  SafetensorsWriter writer =
      SafetensorsWriter::single(folder_ / "s3", {{"a", DType::U8, {1}}, {"c", DType::U8, {1}}});
  writer.write("a", pattern(1, 0));
  writer.write("c", pattern(1, 0));
  writer.finish();
  EXPECT_EQ(with_index(R"({"weight_map":{"a":"s3"}})"),
            index + ": error: the index must name every tensor of its shards, but 'c' of 's3' is missing");
}

TEST_F(SafetensorsTest, EveryFailingWriteLeavesNothing) {
  std::uint64_t n = 1;
  for (bool failed = true; failed; ++n) {
    testing::fail_nth_write(n);
    failed = error_text([&] { write_shards(folder_, 25); }) != "no error";
    EXPECT_EQ(names().empty(), failed);
  }
  EXPECT_GT(n, 20u);
  EXPECT_EQ(open_safetensors_folder(folder_).size(), 3u);
}

TEST_F(SafetensorsTest, NamesThatAreNotUtf8AreRefused) {
  EXPECT_EQ(
      error_text([&] { SafetensorsWriter::single(folder_ / "a", {{"\xff", DType::U8, {1}}}); }),
      (folder_ / "a").string() +
          ": error: tensor names and metadata must be UTF-8 to be stored in safetensors, but one is not");
  EXPECT_EQ(names(), Names{});
}

TEST_F(SafetensorsTest, CorpusOfTheFuzzerIsSortedIntoGoodAndBad) {
  int good = 0, bad = 0;
  for (const auto& entry :
       fs::directory_iterator(fs::path(SLMC_SOURCE_DIR) / "tests/fuzz/corpus/safetensors")) {
    const std::string text = error_text([&] { SafetensorsFile::open(entry.path()); });
    const bool expected = entry.path().filename().string().starts_with("good_");
    EXPECT_EQ(text == "no error", expected) << entry.path() << ": " << text;
    ++(expected ? good : bad);
  }
  EXPECT_GE(good, 5);
  EXPECT_GE(bad, 20);
}

TEST_F(SafetensorsTest, DamageIsSurvived) {
  damage_everywhere(file_of(kGood, std::string(12, 'x')), [](std::span<const std::byte> bytes) {
    const SafetensorsFile file = SafetensorsFile::parse(bytes, "m");
    for (const StoredTensor& t : file.tensors()) file.read(t.name).to_floats();
  });
}

}  // namespace
}  // namespace slmc::io
