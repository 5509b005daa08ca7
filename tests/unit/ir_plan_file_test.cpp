// Plans as files: they come back as they were, bind to their base, and are read strictly.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "plan_testing.h"

namespace slmc::ir {
namespace {

namespace fs = std::filesystem;
using namespace testing_plan;

TEST(Plan, FilesRoundTripAndBindToTheirBase) {
  const fs::path folder = fs::temp_directory_path() / ("slmc_plan_test_" + std::to_string(::getpid()));
  fs::create_directories(folder);
  const Model base = numbered(tiny_configs()[0]);
  Plan plan(base);
  plan.take["block.0.ffn"] = {0, 3, 5};
  plan.config = std::make_shared<const Json>(json(R"({"context": 16})"));
  plan.why = std::make_shared<const Json>(json(R"({"method": "test"})"));
  SetFrom dense, quantized;
  dense.value = io::TensorData::floats({12, 3}, std::vector<float>(36, 0.25f));
  plan.set["block.0.ffn.down"] = dense;
  io::Quantized q;
  q.scheme = {4, 3, io::QuantScheme::Zero::Min, DType::F16};
  q.codes.assign(36, 7);
  q.scales.assign(12, 0.5f);
  q.mins.assign(12, -1.0f);
  quantized.value = io::TensorData::of({3, 12}, q);
  quantized.value->shape = {3, 12};
  plan.set["block.0.ffn.up"] = quantized;
  write_plan(folder, plan);
  const Plan back = read_plan(folder / "plan.json");
  EXPECT_EQ(back.base_content, base.content_hash());
  EXPECT_EQ(to_json(back).dump(), [&] {
    Plan p = plan;
    p.base_content = base.content_hash();
    return to_json(p).dump();
  }());
  const Model a = apply(plan, base), b = apply(back, base);
  EXPECT_EQ(a.content_hash(), b.content_hash());
  EXPECT_EQ(*b.read("block.0.ffn.up").quantized, q);
  // Another model of the same shape is refused, because the values were solved for this one.
  const Model sibling = with_weights(json(tiny_configs()[0]), [](const TensorSpec& spec) {
    std::int64_t n = 1;
    for (const std::int64_t s : spec.shape) n *= s;
    return io::TensorData::floats(spec.shape, std::vector<float>(static_cast<std::size_t>(n), 1.0f));
  });
  EXPECT_EQ(sibling.shape_hash(), base.shape_hash());
  EXPECT_THROW(apply(back, sibling), Error);
  Plan shapes = back;
  shapes.set.clear();
  EXPECT_NO_THROW(apply(shapes, sibling));
  fs::remove_all(folder);
}

TEST(Plan, JsonIsStrict) {
  const auto wrong = [](const std::string& text, const std::string& word) {
    try {
      plan_from_json(json(text), "plan.json");
      ADD_FAILURE() << text;
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::Recipe);
      EXPECT_NE(e.text().find(word), std::string::npos) << e.text();
    }
  };
  const std::string head = R"({"slmc_plan": 1, "base": {"shape": "x"}, )";
  EXPECT_NO_THROW(plan_from_json(json(R"({"slmc_plan": 1, "base": {"shape": "x"}})"), "plan.json"));
  wrong(R"({"slmc_plan": 2, "base": {"shape": "x"}})", "newer");
  wrong(R"({"base": {"shape": "x"}})", "slmc_plan");
  wrong(head + R"("tak": {}})", "take");
  wrong(head + R"("take": {"hidden": [0.5]}})", "whole numbers");
  wrong(head + R"("take": []})", "object");
  wrong(head + R"("set": {"head": {}}})", "either 'file' or 'copy'");
  wrong(head + R"("set": {"head": {"file": "../x", "tensor": "a"}}})", "plan's folder");
  wrong(head + R"("set": {"head": {"file": "/x", "tensor": "a"}}})", "plan's folder");
  wrong(head + R"("format": {"*": 4}})", "text");
}

}  // namespace
}  // namespace slmc::ir
