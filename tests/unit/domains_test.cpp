// Domains over time: whose turn it is, the weights that follow losses, the losses that a size should reach.
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "core/error.h"
#include "core/rng.h"
#include "data/domain_weights.h"
#include "data/mixture.h"

namespace slmc::data {
namespace {

using Values = std::vector<double>;

Values random_weights(const Rng& rng, std::uint64_t first, std::size_t domains) {
  Values out;
  for (std::size_t d = 0; d < domains; ++d) out.push_back(0.01 + rng.uniform(first + d));
  return out;
}

// Weights that change at random windows: each domain's windows come in order and once each, counts follow the sum of the shares, and any
// window can be asked for at any time.
TEST(Mixture, ChangingSharesAreFollowedAndNothingIsLostOrReadTwice) {
  for (const std::size_t domains : {1u, 2u, 5u, 7u}) {
    const Rng rng(17, domains);
    Mixture mixture(random_weights(rng, 0, domains));
    std::uint64_t n = 100;
    for (std::int64_t at = 0; at < 5000; at += 1 + static_cast<std::int64_t>(rng.below(300, n++))) mixture.change(at, random_weights(rng, 1000 + 10 * n, domains));
    std::vector<std::int64_t> had(domains, 0);
    Values mass(domains, 0.0);
    std::size_t era = 0;
    for (std::int64_t i = 0; i < 5500; ++i) {
      while (era + 1 < mixture.eras().size() && mixture.eras()[era + 1].first <= i) ++era;
      ASSERT_EQ(mixture.turns_before(i), had) << i;
      const auto [domain, own] = mixture.turn(i);
      ASSERT_EQ(own, had[static_cast<std::size_t>(domain)]++);
      for (std::size_t d = 0; d < domains; ++d) {
        mass[d] += mixture.eras()[era].shares[d];
        ASSERT_LE(std::abs(static_cast<double>(had[d]) - mass[d]), 0.5 + static_cast<double>(domains) / 2);
      }
    }
  }
}

TEST(Mixture, ChangingToTheSameSharesChangesNothing) {
  const Values weights = {3.137, 1.0717, 0.2531, 0.7573};                 // no two are ever due at once
  const Mixture plain(weights);
  Mixture changed(weights);
  for (const std::int64_t at : {0, 3, 7, 100, 101, 555}) changed.change(at, weights);
  for (std::int64_t i = 0; i < 1000; ++i) EXPECT_EQ(plain.turn(i), changed.turn(i));
}

TEST(Mixture, TheLastChangeAtAWindowCounts) {
  Mixture once({1, 1}), twice({1, 1});
  once.change(10, {1, 3});
  twice.change(10, {5, 1});
  twice.change(10, {1, 3});
  EXPECT_EQ(twice.eras().size(), 2u);
  for (std::int64_t i = 0; i < 100; ++i) EXPECT_EQ(once.turn(i), twice.turn(i));
}

// A domain with a share of one in a thousand still has its turn when weights change every fifty windows.
TEST(Mixture, SmallSharesAreNotForgottenWhenWeightsChangeOften) {
  Mixture mixture({0.999, 0.001});
  for (std::int64_t at = 50; at <= 100'000; at += 50) mixture.change(at, {0.999, 0.001});
  EXPECT_NEAR(static_cast<double>(mixture.turns_before(100'000)[1]), 100, 1);
}

// Sheared LLaMA's seven domains: cc, github, book, stackexchange, wiki, arxiv, c4. Computed from algorithm 1 with five digits.
TEST(DomainWeights, EqualThePapersUpdate) {
  const Values w = {.67, .045, .045, .02, .045, .025, .15}, d = {.30, .10, .35, .20, .40, .15, .38},
               want = {.66601, .03662, .04703, .01799, .04944, .02139, .16153}, smoothed = {.66596, .03663, .04704, .01800, .04945, .02140, .16152};
  const Values zero(7, 0.0);
  const Values got = next_weights({.smooth = 0}, w, d, zero), soft = next_weights({}, w, d, zero);
  for (std::size_t i = 0; i < 7; ++i) {
    EXPECT_NEAR(got[i], want[i], 5.1e-6);
    EXPECT_NEAR(soft[i], smoothed[i], 5.1e-6);
  }
}

TEST(DomainWeights, EqualTheLoopsWithAndWithoutClampAndForBothKinds) {
  const Rng rng(3);
  for (std::uint64_t trial = 0; trial < 50; ++trial) {
    Values w, loss, reference;
    double sum = 0;
    for (std::uint64_t i = 0; i < 5; ++i) {
      w.push_back(0.05 + rng.uniform(100 * trial + i)), sum += w.back();
      loss.push_back(3 * rng.uniform(100 * trial + 10 + i)), reference.push_back(3 * rng.uniform(100 * trial + 20 + i));
    }
    for (double& v : w) v /= sum;
    for (const bool clamp : {true, false}) {
      for (const auto kind : {WeightRule::Kind::Doremi, WeightRule::Kind::Bandit}) {
        const WeightRule rule{kind, 0.7, clamp, 0.01};
        Values want;
        double total = 0, got_total = 0;
        for (std::size_t i = 0; i < 5; ++i) {
          const double behind = loss[i] - reference[i], up = clamp && behind < 0 ? 0 : behind;
          want.push_back(kind == WeightRule::Kind::Doremi ? w[i] * std::exp(0.7 * up) : std::exp(w[i] + 0.7 * up)), total += want.back();
        }
        const Values got = next_weights(rule, w, loss, reference);
        for (std::size_t i = 0; i < 5; ++i) {
          EXPECT_NEAR(got[i], 0.99 * want[i] / total + 0.01 / 5, 1e-14);
          got_total += got[i];
        }
        EXPECT_NEAR(got_total, 1, 1e-14);
      }
    }
  }
  const Values w = {.2, .3, .5}, same = next_weights({.smooth = 0}, w, {1, 2, 3}, {1.5, 2, 4});      // nowhere behind: nothing moves
  for (std::size_t i = 0; i < 3; ++i) EXPECT_NEAR(same[i], w[i], 1e-15);
  for (const double v : next_weights({}, {1e-300, 1}, {900, 0}, {0, 0})) EXPECT_TRUE(std::isfinite(v));
}

// The reference losses of Sheared LLaMA's published code: measured with 70B, 13B and 7B, predicted for its three targets. Domains as above.
const Values kSizes = {68'976'648'192.0, 13'015'864'320.0, 6'738'415'616.0};                // exact parameters
const double kMeasured[3][7] = {{1.4621, .4890, 1.6450, 1.2805, 1.2118, 1.1148, 1.6848},
                                {1.6680, .5791, 1.8242, 1.3936, 1.3945, 1.2109, 1.8486},
                                {1.7520, .6216, 1.9063, 1.4482, 1.4844, 1.2637, 1.9219}};
const struct {
  double parameters;
  double losses[7];
} kPredicted[] = {{2.7016e9, {1.8712, .6883, 2.0325, 1.5353, 1.6297, 1.3560, 2.0328}},
                  {1.3454e9, {1.9643, .7459, 2.1393, 1.6117, 1.7590, 1.4449, 2.1251}},
                  {0.3739e9, {2.1401, .8694, 2.3625, 1.7791, 2.0470, 1.6637, 2.3139}}};

Values measured(int domain) { return {kMeasured[0][domain], kMeasured[1][domain], kMeasured[2][domain]}; }

TEST(ScalingLaw, PredictsThePapersReferenceLosses) {
  const double laws[7][3] = {{4.8025, .0283, -2.798}, {.5887, .1551, .1837}, {1.2869, .1294, .9009}, {.6992, .1756, .9480},
                             {1.0904, .1925, .7292},  {.5274, .2913, .9612}, {1.3054, .1088, .8611}};      // A, b, c
  for (int d = 0; d < 7; ++d) {
    SCOPED_TRACE(d);
    const ScalingLaw law = fit_scaling_law(kSizes, measured(d));
    EXPECT_NEAR(law.a, laws[d][0], 1e-4);
    EXPECT_NEAR(law.b, laws[d][1], 1e-4);
    EXPECT_NEAR(law.c, laws[d][2], 1e-4);
    for (std::size_t i = 0; i < 3; ++i) EXPECT_NEAR(law.at(kSizes[i]), measured(d)[i], 1e-10);
    for (const auto& row : kPredicted) EXPECT_NEAR(law.at(row.parameters), row.losses[d], 2.5e-4) << row.parameters;
  }
}

TEST(ScalingLaw, FindsTheLawThatMadeManyPointsAndIsTheLeastSquaresOfNoisyOnes) {
  const ScalingLaw truth{1.2, 0.31, 1.7};
  Values n, losses, noisy;
  for (int i = 0; i < 9; ++i) {
    n.push_back(1e8 * std::pow(2.3, (i * 4) % 9));                         // in no order
    losses.push_back(truth.at(n.back()));
    noisy.push_back(losses.back() + 0.003 * Rng(4).normal(static_cast<std::uint64_t>(i)));
  }
  const ScalingLaw law = fit_scaling_law(n, losses);
  EXPECT_NEAR(law.b, truth.b, 1e-6);
  EXPECT_NEAR(law.a, truth.a, 1e-5);
  EXPECT_NEAR(law.c, truth.c, 1e-5);
  const auto squares = [&](const ScalingLaw& l) {
    double sum = 0;
    for (std::size_t i = 0; i < n.size(); ++i) sum += std::pow(l.at(n[i]) - noisy[i], 2);
    return sum;
  };
  const ScalingLaw best = fit_scaling_law(n, noisy);
  EXPECT_NEAR(best.residual, std::sqrt(squares(best) / 9), 1e-12);
  for (const double da : {-1e-3, 0.0, 1e-3}) {
    for (const double db : {-1e-3, 0.0, 1e-3}) {
      for (const double dc : {-1e-3, 0.0, 1e-3}) EXPECT_GE(squares({best.a + da, best.b + db, best.c + dc}), squares(best) * (1 - 1e-9));
    }
  }
}

// Inside the points a prediction moves about as much as the losses; far outside, several times as much.
TEST(ScalingLaw, SensitivityTellsHowFarPointsReach) {
  EXPECT_LT(sensitivity(kSizes, measured(5), 20e9), 3);
  EXPECT_GT(sensitivity(kSizes, measured(5), 0.3739e9), 2 * sensitivity(kSizes, measured(5), 2.7e9));
}

TEST(ScalingLaw, RefusesWhatIsNoLaw) {
  EXPECT_THROW(fit_scaling_law({1e9, 2e9}, {3, 2}), Error);
  EXPECT_THROW(fit_scaling_law({1e9, 1e9, 2e9}, {3, 3, 2}), Error);
  EXPECT_THROW(fit_scaling_law({1e9, 2e9, 4e9}, {3, 3.5, 2}), Error);      // rises
  EXPECT_THROW(fit_scaling_law({1e9, 2e9, 4e9}, {3, 2.9, 2}), Error);      // falls faster and faster
  EXPECT_THROW(fit_scaling_law({1e9, 2e9, 4e9, 8e9}, {2, 2.1, 2.2, 2.3}), Error);
}

TEST(References, FromLossesOrFromPoints) {
  const std::vector<std::string> domains = {"wiki", "arxiv"};
  const References given = references_from_json(Json::parse(R"({"losses": {"arxiv": 1.5, "wiki": 2.5}})"), "f.json", domains, 1e9);
  EXPECT_EQ(given.losses, (Values{2.5, 1.5}));
  Json points = Json::array();
  for (int i = 0; i < 3; ++i) points.push_back({{"parameters", kSizes[i]}, {"losses", {{"wiki", kMeasured[i][4]}, {"arxiv", kMeasured[i][5]}}}});
  const References fitted = references_from_json({{"points", points}}, "f.json", domains, 1.3454e9);
  EXPECT_NEAR(fitted.losses[0], 1.7590, 2.5e-4);
  EXPECT_NEAR(fitted.losses[1], 1.4449, 2.5e-4);
  EXPECT_EQ(fitted.laws.size(), 2u);
  EXPECT_GT(fitted.sensitivities.at("wiki"), 1);
  for (const char* wrong : {R"({})", R"([])", R"({"losses": {"wiki": 1}})", R"({"losses": {"wiki": 1, "arxiv": 0}})", R"({"losses": {"wiki": 1, "arxiv": 1, "c4": 1}})",
                            R"({"losses": {"wiki": 1, "arxiv": "x"}})", R"({"points": []})", R"({"points": 3})", R"({"points": [3, 4, 5]})",
                            R"({"points": [], "losses": {}})", R"({"losses": {"wiki": 1, "arxiv": 1}, "more": 1})"}) {
    EXPECT_THROW(references_from_json(Json::parse(wrong), "f.json", domains, 1e9), Error) << wrong;
  }
}

}  // namespace
}  // namespace slmc::data
