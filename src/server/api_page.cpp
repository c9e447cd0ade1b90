#include "server/api_description.h"

namespace calotype::server {

std::string_view api_page() {
  return R"page(<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>Calotype API</title><link rel="icon" href="/-/icon.svg" type="image/svg+xml"><style>
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}
h2{margin:2rem 0 .5rem}details{border:1px solid #ccc;border-radius:.4rem;margin:.4rem 0;padding:.4rem .8rem}
summary{cursor:pointer}code,pre,textarea,input{font:14px/1.4 ui-monospace,monospace}b.m{display:inline-block;width:4.5rem}
pre{background:#f4f4f4;padding:.6rem;overflow:auto;max-height:24rem}textarea{width:100%;min-height:6rem}label{display:block;margin:.4rem 0}
input{width:20rem;max-width:100%}button{font:inherit;padding:.2rem 1rem}
@media(prefers-color-scheme:dark){body{background:#181818;color:#ddd}pre{background:#242424}details{border-color:#444}}
</style></head><body><h1>Calotype API</h1><p id="about"></p>
<label>Token <input id="token" type="password" autocomplete="off" placeholder="only where one is needed"></label><main id="list">Loading …</main>
<script>
"use strict";
const make=(tag,text,parent)=>{const e=document.createElement(tag);if(text!==undefined)e.textContent=text;if(parent)parent.append(e);return e};
const example=(schema,all)=>{if(!schema)return null;if(schema.$ref)return example(all[schema.$ref.split("/").pop()],all);
 if(schema.enum)return schema.enum[0];const type=Array.isArray(schema.type)?schema.type[0]:schema.type;
 if(type==="object"){const o={};for(const k of schema.required||[])o[k]=example((schema.properties||{})[k],all);return o}
 return {array:[],integer:schema.minimum||1,number:1,boolean:false,string:""}[type]??null};
const operation=(path,method,op,all,parent)=>{const box=make("details",undefined,parent),head=make("summary",undefined,box);
 const word=make("b",method.toUpperCase(),head);word.className="m";make("code",path,head);head.append(" — "+op.summary);
 const inputs={};for(const p of op.parameters||[]){const label=make("label",p.name+(p.required?" * ":" "),box);inputs[p.name]=[p,make("input",undefined,label)]}
 let body;const content=op.requestBody&&op.requestBody.content["application/json"];
 if(content){body=make("textarea",undefined,box);body.value=JSON.stringify(example(content.schema,all),null,1)}
 const button=make("button","Send",box),result=make("pre",undefined,box);result.hidden=true;
 button.onclick=async()=>{let url=path;const query=new URLSearchParams();
  for(const [name,[p,field]] of Object.entries(inputs)){if(p.in==="path")url=url.replace("{"+name+"}",encodeURIComponent(field.value));else if(field.value)query.set(name,field.value)}
  const headers={};const token=document.getElementById("token").value;if(token)headers.Authorization="Bearer "+token;if(body)headers["Content-Type"]="application/json";
  result.hidden=false;result.textContent="…";
  try{const answer=await fetch(url+(query.size?"?"+query:""),{method:method.toUpperCase(),headers,body:body?body.value:undefined});
   let text=await answer.text();try{text=JSON.stringify(JSON.parse(text),null,1)}catch{}result.textContent=answer.status+"\n"+text}
  catch(error){result.textContent=String(error)}}};
fetch("openapi.json").then(a=>a.json()).then(api=>{document.getElementById("about").textContent=api.info.description;
 const list=document.getElementById("list");list.textContent="";const groups={};
 for(const [path,methods] of Object.entries(api.paths))for(const [method,op] of Object.entries(methods))(groups[op.tags[0]]??=[]).push([path,method,op]);
 for(const [name,all] of Object.entries(groups)){make("h2",name,list);for(const [path,method,op] of all)operation(path,method,op,api.components.schemas,list)}
}).catch(error=>{document.getElementById("list").textContent=String(error)});
</script></body></html>)page";
}

}  // namespace calotype::server
