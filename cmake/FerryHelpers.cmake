# ferry_layer(NAME SOURCES... LINK PUBLIC-LAYERS... FOREIGN LIBRARIES...)
# One static library per layer. Foreign libraries are linked PRIVATE: their headers are visible in
# this layer only.
function(ferry_layer name)
    cmake_parse_arguments(ARG "" "" "SOURCES;LINK;FOREIGN" ${ARGN})
    add_library(${name} STATIC ${ARG_SOURCES})
    target_link_libraries(${name} PUBLIC ferry_options ${ARG_LINK} PRIVATE ${ARG_FOREIGN})
endfunction()

# ferry_test(NAME LABEL SOURCES... LINK TARGETS... [TIMEOUT SECONDS])
# A cmocka program, run by ctest as LABEL.NAME.
function(ferry_test name label)
    cmake_parse_arguments(ARG "" "TIMEOUT" "SOURCES;LINK" ${ARGN})
    if(NOT ARG_TIMEOUT)
        set(ARG_TIMEOUT 60)
    endif()
    add_executable(test_${name} ${ARG_SOURCES})
    target_link_libraries(test_${name} PRIVATE ferry_options ${ARG_LINK} PkgConfig::CMOCKA)
    add_test(NAME ${label}.${name} COMMAND test_${name})
    set_tests_properties(${label}.${name} PROPERTIES LABELS ${label} TIMEOUT ${ARG_TIMEOUT}
                         SKIP_RETURN_CODE 77)
    if(label MATCHES "^(unit|contract)$")
        add_dependencies(sanitized_tests test_${name})
    endif()
endfunction()

# ferry_script_test(NAME LABEL COMMAND... [TIMEOUT SECONDS] [SERIAL])
# A script, run by ctest as LABEL.NAME with FERRY_BIN (folder of the programs) and FERRY_SOURCE set.
function(ferry_script_test name label)
    cmake_parse_arguments(ARG "SERIAL" "TIMEOUT" "COMMAND" ${ARGN})
    if(NOT ARG_TIMEOUT)
        set(ARG_TIMEOUT 120)
    endif()
    add_test(NAME ${label}.${name} COMMAND ${ARG_COMMAND} WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
    set_tests_properties(${label}.${name} PROPERTIES LABELS ${label} TIMEOUT ${ARG_TIMEOUT}
                         SKIP_RETURN_CODE 77
                         ENVIRONMENT "FERRY_BIN=${PROJECT_BINARY_DIR}/bin;FERRY_SOURCE=${PROJECT_SOURCE_DIR}")
    if(ARG_SERIAL)
        set_tests_properties(${label}.${name} PROPERTIES RUN_SERIAL TRUE)
    endif()
endfunction()
