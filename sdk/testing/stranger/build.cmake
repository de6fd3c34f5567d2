# cmake -DBUILD=… -DSOURCE=… -DC=… -DCXX=… -P build.cmake: installs the SDK and builds and tests the sample device against
# nothing but that.
set(work ${BUILD}/stranger)
file(REMOVE_RECURSE ${work})
file(COPY ${SOURCE}/testing/stranger/CMakeLists.txt ${SOURCE}/testing/example/ticker.c
          ${SOURCE}/testing/example/ticker_test.cc ${SOURCE}/testing/example/ticker.schema DESTINATION ${work}/source)
function(run)
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(NOT result EQUAL 0)
    message(FATAL_ERROR "${ARGN}:\n${output}")
  endif()
endfunction()
run(${CMAKE_COMMAND} --install ${BUILD} --prefix ${work}/prefix --component vdev)
run(${CMAKE_COMMAND} -S ${work}/source -B ${work}/build -DCMAKE_PREFIX_PATH=${work}/prefix -DCMAKE_C_COMPILER=${C}
    -DCMAKE_CXX_COMPILER=${CXX} -DCMAKE_CXX_STANDARD=20)
run(${CMAKE_COMMAND} --build ${work}/build)
run(${CMAKE_CTEST_COMMAND} --test-dir ${work}/build --output-on-failure)
