# Build rules that every part shares: language level, warnings, sanitizers, and the helpers for tests and plugins.

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_C_STANDARD 11)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_CXX_VISIBILITY_PRESET hidden)
set(CMAKE_VISIBILITY_INLINES_HIDDEN ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)

find_program(CCACHE ccache)
if(CCACHE)
  set(CMAKE_C_COMPILER_LAUNCHER ${CCACHE})
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CCACHE})
endif()

set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
set(TRANSOM_PLUGIN_DIR ${CMAKE_BINARY_DIR}/lib/transom/plugins)

add_compile_options(-Wall -Wextra -Wpedantic -Wshadow -Werror)

set(TRANSOM_SANITIZE "" CACHE STRING "none | address | thread | fuzz")
if(TRANSOM_SANITIZE STREQUAL "address")
  add_compile_options(-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer)
  add_link_options(-fsanitize=address,undefined)
elseif(TRANSOM_SANITIZE STREQUAL "thread")
  add_compile_options(-fsanitize=thread -fno-omit-frame-pointer)
  add_link_options(-fsanitize=thread)
elseif(TRANSOM_SANITIZE STREQUAL "fuzz")
  add_compile_options(-fsanitize=fuzzer-no-link,address,undefined -fno-omit-frame-pointer)
  add_link_options(-fsanitize=address,undefined)
endif()

# transom_label_target(TARGET LABELS...): building tests_LABEL builds all test programs of a label (./dev builds only those
# under a sanitizer).
function(transom_label_target target)
  foreach(label ${ARGN})
    if(NOT TARGET tests_${label})
      add_custom_target(tests_${label})
    endif()
    add_dependencies(tests_${label} ${target})
  endforeach()
endfunction()

# transom_test(NAME SOURCES... [LIBS libs...] [LABELS label] [LONG filter] [AGAIN word variable=value]): one GoogleTest
# program; every TEST is a ctest of its own. Labels that ./dev knows: thread (runs under TSan too); long (only with --long;
# LONG gives it to the tests that match); the rest say which part is tested. AGAIN: all tests a second time, as word.NAME…,
# with that in the environment.
function(transom_test name)
  cmake_parse_arguments(T "" "LABELS;LONG" "LIBS;AGAIN" ${ARGN})
  add_executable(${name} ${T_UNPARSED_ARGUMENTS})
  target_link_libraries(${name} PRIVATE ${T_LIBS} GTest::gtest GTest::gmock GTest::gtest_main)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  target_compile_definitions(${name} PRIVATE TRANSOM_PLUGIN_DIR="${TRANSOM_PLUGIN_DIR}" TRANSOM_BIN_DIR="${CMAKE_BINARY_DIR}/bin")
  if(T_LONG)
    gtest_discover_tests(${name} TEST_PREFIX "${name}." TEST_FILTER "${T_LONG}" TEST_LIST ${name}_LONG DISCOVERY_TIMEOUT 60
                         PROPERTIES LABELS long)
    set(rest TEST_FILTER "-${T_LONG}")
  endif()
  gtest_discover_tests(${name} TEST_PREFIX "${name}." ${rest} DISCOVERY_TIMEOUT 60 PROPERTIES LABELS "${T_LABELS}")
  if(T_AGAIN)
    list(POP_FRONT T_AGAIN word)
    gtest_discover_tests(${name} TEST_PREFIX "${word}.${name}." TEST_LIST ${name}_AGAIN DISCOVERY_TIMEOUT 60
                         PROPERTIES LABELS "${T_LABELS}" ENVIRONMENT "${T_AGAIN}")
  endif()
  transom_label_target(${name} ${T_LABELS})
endfunction()

# transom_plugin(NAME SOURCES...): a device plugin, built as any stranger's would be: against the SDK alone.
function(transom_plugin name)
  add_library(plugin_${name} MODULE ${ARGN})
  target_link_libraries(plugin_${name} PRIVATE vdev)
  set_target_properties(plugin_${name} PROPERTIES PREFIX "" OUTPUT_NAME ${name}
                        LIBRARY_OUTPUT_DIRECTORY ${TRANSOM_PLUGIN_DIR})
  target_link_options(plugin_${name} PRIVATE -Wl,--version-script=${CMAKE_SOURCE_DIR}/sdk/vdev.map)
  if(NOT TRANSOM_SANITIZE) # a sanitizer's runtime lies in the program that opens the plugin
    target_link_options(plugin_${name} PRIVATE -Wl,--no-undefined -Wl,-z,defs)
  endif()
  set_property(TARGET plugin_${name} APPEND PROPERTY LINK_DEPENDS ${CMAKE_SOURCE_DIR}/sdk/vdev.map)
endfunction()

# transom_plugin_test(NAME SOURCES...): tests that load plugins/<group>/<group>.so through the SDK's bench.
function(transom_plugin_test group)
  transom_test(${group}_test ${ARGN} LIBS vdev_testing LABELS plugin)
  add_dependencies(${group}_test plugin_${group})
endfunction()

# transom_plugin_fuzz(NAME SOURCES...): the fuzz target <group>_fuzz of a plugin (VDEV_FUZZ in one of the sources). With
# TRANSOM_SANITIZE=fuzz it is a libFuzzer program; else a test that runs random inputs, and a program that replays files.
function(transom_plugin_fuzz group)
  add_executable(${group}_fuzz ${ARGN})
  add_dependencies(${group}_fuzz plugin_${group})
  set_target_properties(${group}_fuzz PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  target_compile_definitions(${group}_fuzz PRIVATE TRANSOM_PLUGIN_DIR="${TRANSOM_PLUGIN_DIR}")
  target_link_libraries(${group}_fuzz PRIVATE vdev_testing)
  if(TRANSOM_SANITIZE STREQUAL "fuzz")
    target_link_options(${group}_fuzz PRIVATE -fsanitize=fuzzer)
  else()
    target_link_libraries(${group}_fuzz PRIVATE vdev_fuzz_main)
    add_test(NAME ${group}_fuzz.RandomInputs COMMAND ${group}_fuzz)
    set_tests_properties(${group}_fuzz.RandomInputs PROPERTIES LABELS plugin)
    transom_label_target(${group}_fuzz plugin)
  endif()
endfunction()
