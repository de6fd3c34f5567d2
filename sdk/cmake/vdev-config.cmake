# The installed vdev SDK:
#   find_package(vdev REQUIRED)
#   vdev_plugin(mydev mydev.c)                  a device library, mydev.so
#   vdev_plugin_test(mydev mydev_test.cc)       a GoogleTest program for it, with vdev::vdev_testing
# Targets: vdev::vdev (headers), vdev::vdev_manifest, vdev::vdev_testing, vdev::vdev_fuzz_main.
include(${CMAKE_CURRENT_LIST_DIR}/vdevTargets.cmake)
set(VDEV_MAP ${CMAKE_CURRENT_LIST_DIR}/vdev.map)

function(vdev_plugin name)
  add_library(${name} MODULE ${ARGN})
  target_link_libraries(${name} PRIVATE vdev::vdev)
  set_target_properties(${name} PROPERTIES PREFIX "" C_VISIBILITY_PRESET hidden CXX_VISIBILITY_PRESET hidden)
  target_link_options(${name} PRIVATE -Wl,--version-script=${VDEV_MAP})
endfunction()

function(vdev_plugin_test name)
  find_package(GTest REQUIRED)
  add_executable(${name}_test ${ARGN})
  add_dependencies(${name}_test ${name})
  target_link_libraries(${name}_test PRIVATE vdev::vdev_testing GTest::gmock GTest::gtest_main)
  add_test(NAME ${name}_test COMMAND ${name}_test)
  set_tests_properties(${name}_test PROPERTIES ENVIRONMENT VDEV_PLUGIN_DIR=$<TARGET_FILE_DIR:${name}>)
endfunction()
