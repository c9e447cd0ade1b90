# Copies every shared library that the program loads, with its licence, below CMAKE_INSTALL_PREFIX. Left to the target
# machine: the C and C++ run-time libraries, which must match its kernel and drivers, and NVIDIA's driver.
# Reads: program (the built binary), libtorch (LibTorch's root).
set(folder "$ENV{DESTDIR}${CMAKE_INSTALL_PREFIX}/lib/calotype")
set(licences "$ENV{DESTDIR}${CMAKE_INSTALL_PREFIX}/share/calotype/licences")

# ldd asks the loader itself. CMake's GET_RUNTIME_DEPENDENCIES searches for each library anew and finds two libgomp.
execute_process(COMMAND ldd ${program} OUTPUT_VARIABLE loaded COMMAND_ERROR_IS_FATAL ANY)
string(REGEX MATCHALL "[^\t\n]+ => not found" lost "${loaded}")
if(lost)
  message(FATAL_ERROR "${program} needs libraries that this machine lacks: ${lost}")
endif()
string(REGEX MATCHALL " => /[^\n]+ \\(" libraries "${loaded}")
list(TRANSFORM libraries REPLACE "^ => (.*) \\($" "\\1")
list(FILTER libraries EXCLUDE REGEX "/lib((c|m|dl|rt|pthread|resolv|util|anl|mvec|gcc_s|stdc\\+\\+)\\.so|cuda\\.so\\.)")

# Loaded by name only when a matrix is decomposed, a kernel compiled or a convolution planned.
if(EXISTS ${libtorch}/lib/libtorch_cuda.so)
  file(GLOB on_demand ${libtorch}/lib/libtorch_cuda_linalg.so ${libtorch}/lib/libcaffe2_nvrtc.so
       ${libtorch}/../nvidia/*/lib/*.so*)
endif()

# Copied under the name that the loader asks for; the links of development packages are of no use there.
file(REMOVE_RECURSE ${folder})
file(MAKE_DIRECTORY ${folder} ${licences})
foreach(library ${libraries} ${on_demand})
  get_filename_component(name ${library} NAME)
  get_filename_component(real ${library} REALPATH)
  if(NOT EXISTS ${folder}/${name})
    file(COPY_FILE ${real} ${folder}/${name})
    list(APPEND names "*/${name}")
  endif()
endforeach()
list(LENGTH names count)
message(STATUS "Installed: ${count} libraries in ${folder}")

# tools/get_libtorch keeps licences in the first of these, pip in the second.
file(GLOB torch_licences ${libtorch}/../licences/* ${libtorch}/../torch-*.dist-info/licenses)
file(COPY ${torch_licences} DESTINATION ${licences}/libtorch)

# Debian keeps each package's licence in one place.
find_program(DPKG_QUERY dpkg-query)
if(DPKG_QUERY)
  execute_process(COMMAND ${DPKG_QUERY} --search ${names} OUTPUT_VARIABLE owners ERROR_QUIET)
  string(REGEX MATCHALL "[^\n]+: " owners "${owners}")
  list(TRANSFORM owners REPLACE "[:,].*" "")
  list(REMOVE_DUPLICATES owners)
  foreach(package ${owners})
    if(EXISTS /usr/share/doc/${package}/copyright)
      file(COPY_FILE /usr/share/doc/${package}/copyright ${licences}/${package})
    endif()
  endforeach()
endif()
