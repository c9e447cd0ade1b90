# Finds LibTorch's headers and libraries without TorchConfig.cmake, which demands a CUDA toolkit if the build has CUDA.
# Accepts a libtorch folder, a Python wheel's torch/ folder, or a site-packages folder that holds one, given by
# TORCH_DIR or CMAKE_PREFIX_PATH (variable or environment); else the copy that tools/setup puts under third_party/.
# Makes the target calotype::torch. Links the CUDA libraries when they are there, never libtorch_python. A fuzz build
# only gets LIBTORCH_INCLUDE_DIR, for fmt's headers.

# What the environment says wins over what an earlier configuration remembers, and is remembered for later ones, which
# ninja starts from any shell. Nothing else is cached, so that every configuration looks at what is there now.
foreach(name TORCH_DIR CMAKE_PREFIX_PATH)
  if(NOT "$ENV{${name}}" STREQUAL "")
    file(TO_CMAKE_PATH "$ENV{${name}}" folders)
    set(${name} "${folders}" CACHE PATH "where LibTorch is" FORCE)
  endif()
endforeach()
if(TORCH_DIR)
  set(places ${TORCH_DIR})
else()
  set(places ${CMAKE_PREFIX_PATH} ${CMAKE_SOURCE_DIR}/third_party/libtorch)
endif()
find_path(LIBTORCH_INCLUDE_DIR ATen/ATen.h PATHS ${places} PATH_SUFFIXES include torch/include NO_DEFAULT_PATH NO_CACHE)
if(NOT LIBTORCH_INCLUDE_DIR)
  message(FATAL_ERROR "LibTorch is missing: no include/ATen/ATen.h in ${places}. Run `make build`, which fetches the "
                      "wheel torch==2.13.0, or set TORCH_DIR to a folder with LibTorch 2.11 or newer.")
endif()
if(CALOTYPE_FUZZ)
  return()
endif()
get_filename_component(LIBTORCH_ROOT ${LIBTORCH_INCLUDE_DIR} DIRECTORY)
foreach(part torch_cpu c10)
  find_library(LIBTORCH_${part} ${part} PATHS ${LIBTORCH_ROOT}/lib NO_DEFAULT_PATH NO_CACHE REQUIRED)
endforeach()
foreach(part torch_cuda c10_cuda)
  find_library(LIBTORCH_${part} ${part} PATHS ${LIBTORCH_ROOT}/lib NO_DEFAULT_PATH NO_CACHE)
endforeach()
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${LIBTORCH_torch_cpu})  # replaced: configure again

set(version_header ${LIBTORCH_INCLUDE_DIR}/torch/headeronly/version.h)
if(EXISTS ${version_header})
  file(STRINGS ${version_header} lines REGEX "define TORCH_VERSION_(MAJOR|MINOR) ")
  string(REGEX REPLACE ".*MAJOR ([0-9]+).*MINOR ([0-9]+).*" "\\1.\\2" LIBTORCH_VERSION "${lines}")
else()
  set(LIBTORCH_VERSION "older than 2.9")
endif()
if(NOT LIBTORCH_VERSION VERSION_GREATER_EQUAL 2.11)
  message(FATAL_ERROR "LibTorch in ${LIBTORCH_ROOT} is version ${LIBTORCH_VERSION}, expected 2.11 or newer")
endif()

add_library(calotype_torch INTERFACE)
add_library(calotype::torch ALIAS calotype_torch)
target_include_directories(calotype_torch SYSTEM INTERFACE ${LIBTORCH_INCLUDE_DIR})
target_link_libraries(calotype_torch INTERFACE ${LIBTORCH_torch_cpu} ${LIBTORCH_c10})

# at::parallel_for needs OpenMP's directives but must run on LibTorch's own runtime: a second would fight for the cores.
file(GLOB LIBTORCH_OPENMP ${LIBTORCH_ROOT}/lib/libgomp*.so* ${LIBTORCH_ROOT}/lib/libiomp5.so
     ${LIBTORCH_ROOT}/../torch.libs/libgomp*.so*)
if(NOT LIBTORCH_OPENMP)
  set(LIBTORCH_OPENMP gomp)  # builds of LibTorch that use the system's
endif()
target_compile_options(calotype_torch INTERFACE -fopenmp)
target_link_libraries(calotype_torch INTERFACE ${LIBTORCH_OPENMP})

# The wheel's libraries look for CUDA's in their own folders; the linker has to be told. A CPU-only installation of the
# CUDA wheel still has two of them.
file(GLOB nvidia_folders ${LIBTORCH_ROOT}/../nvidia/*/lib)
foreach(folder ${nvidia_folders})
  target_link_options(calotype_torch INTERFACE -Wl,-rpath-link,${folder})
endforeach()
if(LIBTORCH_torch_cuda)
  # Nothing refers to a symbol of the CUDA library; loading it is what registers the device.
  target_link_options(calotype_torch INTERFACE
                      -Wl,--push-state,--no-as-needed,${LIBTORCH_torch_cuda},${LIBTORCH_c10_cuda},--pop-state)
  set(kind "with CUDA")
else()
  set(kind "for the CPU")
endif()
message(STATUS "LibTorch ${LIBTORCH_VERSION} ${kind} in ${LIBTORCH_ROOT}")
