# cmake -DKIND=pool -DFILES=a.sql;b.sql -DOUTPUT=x.c -P embed_sql.cmake
# The migrations of one kind of database as a C array, in order; a gap in their numbers is an error.
set(rows "")
set(expected 1)
foreach(file IN LISTS FILES)
    get_filename_component(name ${file} NAME)
    string(REGEX MATCH "^${KIND}_([0-9][0-9][0-9])_" found ${name})
    math(EXPR version "1${CMAKE_MATCH_1} - 1000")
    if(NOT found OR NOT version EQUAL expected)
        message(FATAL_ERROR "${name}: expected the migration with number ${expected}")
    endif()
    math(EXPR expected "${expected} + 1")
    file(READ ${file} text)
    string(REPLACE "\\" "\\\\" text "${text}")
    string(REPLACE "\"" "\\\"" text "${text}")
    string(REPLACE "\n" "\\n\"\n\t \"" text "${text}")
    string(APPEND rows "\t{${version}, \"${name}\",\n\t \"${text}\"},\n")
endforeach()
file(WRITE ${OUTPUT} "/* Made by embed_sql.cmake. */
#include \"schema/migrations.h\"

#include \"base/cleanup.h\"

const struct db_migration ${KIND}_migrations[] = {
${rows}};
const size_t n_${KIND}_migrations = ARRAY_SIZE(${KIND}_migrations);
")
