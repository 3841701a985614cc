# ferry_layer(NAME SOURCES... LINK PUBLIC-LAYERS... FOREIGN LIBRARIES...)
# One static library per layer. Foreign libraries are linked PRIVATE: their headers are visible in
# this layer only.
function(ferry_layer name)
    cmake_parse_arguments(ARG "" "" "SOURCES;LINK;FOREIGN" ${ARGN})
    add_library(${name} STATIC ${ARG_SOURCES})
    target_link_libraries(${name} PUBLIC ferry_options ${ARG_LINK} PRIVATE ${ARG_FOREIGN})
endfunction()

# Slots of ctest -j, of which ./check gives two per core and two more: a test takes two, one that WAITS half of its time or
# longer takes one. So no more tests compute at once than there are cores, and some that wait are beside them.
set(FERRY_SLOTS 2)
set(FERRY_SLOTS_WAITING 1)

# Sets the slots of a test, and what it costs.
macro(ferry_schedule test)
    set(slots ${FERRY_SLOTS})
    if(ARG_WAITS)
        set(slots ${FERRY_SLOTS_WAITING})
    elseif(ARG_TAKES)
        math(EXPR ARG_TAKES "1000 + ${ARG_TAKES}")
    endif()
    set_tests_properties(${test} PROPERTIES PROCESSORS ${slots})
    if(ARG_TAKES)
        set_tests_properties(${test} PROPERTIES COST ${ARG_TAKES})
    endif()
endmacro()

# ferry_test(NAME LABEL SOURCES... LINK TARGETS... [TIMEOUT SECONDS] [TAKES SECONDS] [WAITS])
# A cmocka program, run by ctest as LABEL.NAME. TAKES: about; those that take longest begin first, and those that compute
# before those that wait, so that none is left alone at the end.
function(ferry_test name label)
    cmake_parse_arguments(ARG "WAITS" "TIMEOUT;TAKES" "SOURCES;LINK" ${ARGN})
    if(NOT ARG_TIMEOUT)
        set(ARG_TIMEOUT 180)
    endif()
    add_executable(test_${name} ${ARG_SOURCES})
    target_link_libraries(test_${name} PRIVATE ferry_options ${ARG_LINK} PkgConfig::CMOCKA)
    add_test(NAME ${label}.${name} COMMAND test_${name})
    set_tests_properties(${label}.${name} PROPERTIES LABELS ${label} TIMEOUT ${ARG_TIMEOUT}
                         SKIP_RETURN_CODE 77)
    ferry_schedule(${label}.${name})
    if(label MATCHES "^(unit|contract)$")
        add_dependencies(sanitized_tests test_${name})
    endif()
endfunction()

# ferry_script_test(NAME LABEL COMMAND... [TIMEOUT SECONDS] [TAKES SECONDS] [WAITS] [SERIAL])
# A script, run by ctest as LABEL.NAME with FERRY_BIN (folder of the programs) and FERRY_SOURCE set.
function(ferry_script_test name label)
    cmake_parse_arguments(ARG "SERIAL;WAITS" "TIMEOUT;TAKES" "COMMAND" ${ARGN})
    if(NOT ARG_TIMEOUT)
        set(ARG_TIMEOUT 300)
    endif()
    add_test(NAME ${label}.${name} COMMAND ${ARG_COMMAND} WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
    set_tests_properties(${label}.${name} PROPERTIES LABELS ${label} TIMEOUT ${ARG_TIMEOUT}
                         SKIP_RETURN_CODE 77
                         ENVIRONMENT "FERRY_BIN=${PROJECT_BINARY_DIR}/bin;FERRY_SOURCE=${PROJECT_SOURCE_DIR}")
    ferry_schedule(${label}.${name})
    if(ARG_SERIAL)
        set_tests_properties(${label}.${name} PROPERTIES RUN_SERIAL TRUE)
    endif()
endfunction()
