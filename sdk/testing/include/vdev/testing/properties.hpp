// The properties of check.hpp as GoogleTests, in one line:
//
//   VDEV_PROPERTIES(Uart, "uart.so", "org.transom.uart16550", .read_only = {{0, 6}}, .schema = "uart.schema")
//
// It registers Uart.<Property> for every property that can apply. Including this file also makes every broken host rule
// of any Bench a test failure.
#pragma once

#include <gtest/gtest.h>

#include "vdev/testing/check.hpp"

namespace vdev::testing {

class PropertyTest : public ::testing::Test {
 public:
  PropertyTest(const Property& property, std::function<Subject()> subject)
      : property_(property), subject_(std::move(subject)) {}
  void TestBody() override {
    const std::string answer = property_.holds(subject_());
    if (answer.starts_with(NOT_APPLICABLE)) GTEST_SKIP() << answer;
    EXPECT_TRUE(answer.empty()) << answer;
  }

 private:
  const Property& property_;
  std::function<Subject()> subject_;
};

inline bool register_properties(const char* suite, const char* file, int line, std::function<Subject()> subject) {
  for (const Property& property : properties()) {
    ::testing::RegisterTest(suite, property.name, nullptr, nullptr, file, line,
                            [&property, subject]() -> PropertyTest* { return new PropertyTest(property, subject); });
  }
  return true;
}

inline const bool violations_are_failures = [] {
  on_violation = [](const std::string& text) { ADD_FAILURE() << "a rule of vdev.h was broken: " << text; };
  return true;
}();

} // namespace vdev::testing

#define VDEV_PROPERTIES(suite, plugin, device, ...)                                                     \
  static const bool vdev_properties_of_##suite =                                                        \
      ::vdev::testing::register_properties(#suite "Properties", __FILE__, __LINE__, [] {                \
        return ::vdev::testing::Subject::open(::vdev::testing::plugin_path(plugin), device,             \
                                              ::vdev::testing::PropertyOptions{__VA_ARGS__}, __FILE__); \
      })
