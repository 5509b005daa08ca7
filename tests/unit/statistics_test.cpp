// lib/io/statistics_file.h: round trips, equal bytes for equal statistics, and damage of every kind is a
// cache miss.
#include <gtest/gtest.h>

#include <chrono>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "core/error.h"
#include "io/statistics_file.h"
#include "tests/unit/damage.h"
#include "tests/unit/error_text.h"
#include "tests/unit/test_folder.h"

namespace slmc::io {
namespace {

namespace fs = std::filesystem;
using StatisticsTest = FolderTest;

template <typename T>
TensorData tensor(std::vector<std::int64_t> shape, DType type, const std::vector<T>& values) {
  const auto bytes = std::as_bytes(std::span(values));
  return TensorData::dense(std::move(shape), type, {bytes.begin(), bytes.end()});
}

const std::vector<double> kGram = {4, 1, 0.5, 1, 3, -2, 0.5, -2, 7};
const Json kHeader = {{"slmc_statistics", 1}, {"model", "ab12"}, {"note", "gr\xC3\xBC\xC3\x9F"}};

void write_small(const fs::path& file) {
  StatisticsWriter writer(file, kHeader);
  writer.write("block.3.ffn.down.in/gram", tensor<double>({3, 3}, DType::F64, kGram));
  writer.write("block.3.ffn.down.in/mean", tensor<float>({3}, DType::F32, {1, 2, 3}));
  writer.write("tokens", tensor<std::int64_t>({}, DType::I64, {65536}));
  writer.write("none", tensor<float>({0, 4}, DType::F32, {}));
  writer.finish();
}

bool equal(const TensorData& a, const TensorData& b) {
  return a.shape == b.shape && a.dtype == b.dtype &&
         std::equal(a.bytes.begin(), a.bytes.end(), b.bytes.begin(), b.bytes.end());
}

TEST_F(StatisticsTest, RoundTrip) {
  write_small(folder_ / "s.h5");
  EXPECT_EQ(names(), Names{"s.h5"});
  StatisticsFile file = StatisticsFile::open(folder_ / "s.h5");
  EXPECT_EQ(file.header(), kHeader);
  EXPECT_EQ(file.names(), (Names{"block.3.ffn.down.in/gram", "block.3.ffn.down.in/mean", "none", "tokens"}));
  EXPECT_TRUE(file.has("tokens"));
  EXPECT_FALSE(file.has("block.3.ffn.down.in"));
  EXPECT_TRUE(equal(file.read("block.3.ffn.down.in/gram"), tensor<double>({3, 3}, DType::F64, kGram)));
  EXPECT_TRUE(equal(file.read("block.3.ffn.down.in/mean"), tensor<float>({3}, DType::F32, {1, 2, 3})));
  EXPECT_TRUE(equal(file.read("tokens"), tensor<std::int64_t>({}, DType::I64, {65536})));
  EXPECT_EQ(file.read("none").shape, (std::vector<std::int64_t>{0, 4}));
  EXPECT_EQ(error_text([&] { file.read("token"); }),
            (folder_ / "s.h5").string() +
                ": error: the dataset 'token' must be in the file, but is not\nhint: did you mean 'tokens'?");
}

TEST_F(StatisticsTest, LargeMatricesSpanChunks) {
  std::vector<float> values(700 * 900);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
  StatisticsWriter writer(folder_ / "s.h5", kHeader);
  writer.write("g", TensorData::floats({700, 900}, values));
  writer.finish();
  EXPECT_EQ(StatisticsFile::open(folder_ / "s.h5").read("g").to_floats(), values);
}

TEST_F(StatisticsTest, EqualStatisticsAreEqualFiles) {
  write_small(folder_ / "a");
  std::this_thread::sleep_for(
      std::chrono::milliseconds(1100));  // HDF5 stamps objects to the second unless told not to
  write_small(folder_ / "b");
  EXPECT_EQ(read_text(folder_ / "a"), read_text(folder_ / "b"));
}

TEST_F(StatisticsTest, TwoFilesFromTwoThreads) {
  std::vector<std::jthread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([this, t] {
      const fs::path path = folder_ / std::to_string(t);
      for (int i = 0; i < 20; ++i) {
        write_small(path);
        EXPECT_EQ(StatisticsFile::open(path).read("tokens").count(), 1);
      }
    });
  }
}

TEST_F(StatisticsTest, DamageIsACacheMiss) {
  const fs::path path = folder_ / "s.h5";
  write_small(path);
  const std::string good = read_text(path);
  auto opens = [&] {
    try {
      StatisticsFile::open(path);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::Data) << error.text();
      return false;
    }
    return true;
  };
  auto put = [&](std::size_t at,
                 char byte) {  // in place: rewriting the file each time would wait for the disk
    std::fstream(path, std::ios::in | std::ios::out | std::ios::binary)
        .seekp(static_cast<std::streamoff>(at))
        .put(byte);
  };
  EXPECT_TRUE(opens());
  for (std::size_t at = 0; at < good.size(); at += at < 600 ? 1 : 13) {
    put(at, static_cast<char>(good[at] ^ 0x40));
    EXPECT_FALSE(opens()) << at;
    put(at, good[at]);
  }
  EXPECT_TRUE(opens());
  for (std::size_t size = good.size() - 1; size > 0; size -= size < 600 ? 1 : 37) {
    fs::resize_file(path, size);
    EXPECT_FALSE(opens()) << size;
  }
  write_text(path, good.substr(0, good.size() - 1));
  EXPECT_EQ(
      error_text([&] { StatisticsFile::open(path); }),
      path.string() + ": error: the file of statistics must have the hash in its first line, but is damaged");
  EXPECT_EQ(error_text([&] { StatisticsFile::open(folder_ / "none"); }),
            (folder_ / "none").string() +
                ": error: the file must be readable, but is not: No such file or directory");
}

TEST_F(StatisticsTest, EveryFailingWriteLeavesNothing) {
  std::uint64_t n = 1;
  for (bool failed = true; failed; ++n) {
    testing::fail_nth_write(n);
    const std::string text = error_text([&] { write_small(folder_ / "s.h5"); });
    failed = text != "no error";
    EXPECT_EQ(names().empty(), failed) << text;
  }
  EXPECT_GT(n, 10u);
}

TEST_F(StatisticsTest, AbandonedWriterLeavesNothing) {
  { StatisticsWriter writer(folder_ / "s.h5", kHeader); }
  EXPECT_EQ(names(), Names{});
}

}  // namespace
}  // namespace slmc::io
